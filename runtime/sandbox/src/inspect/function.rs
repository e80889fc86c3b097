//! What the functions cost to compile.
//!
//! Measured with Cranelift 0.135: time and memory grow with the size of a function, with the square of its blocks, with
//! blocks times the locals that live across them, with loops times how deep they are nested, and with calls times results.
//! For code that people write these products are small, and for code that was made for it they are without bound: 5,000
//! loops over 5,000 locals, 47 KB in all, take half a minute and 1.5 GB.

use super::{add, bound};
use crate::error::LoadError;
use wasmparser::{FunctionBody, Operator};

/// Most bytes of one function: at the worst (nothing but calls) 400 MB and 2 s to compile. The largest that are known, the
/// interpreter loops of language runtimes, have some 100 KB.
const FUNCTION_BYTES_MAX: usize = 512 * 1024;
/// Most bytes of all functions. A Python runtime with its libraries has some 10 MB.
const CODE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most blocks inside one another. A switch nests one for each of its cases.
const DEPTH_MAX: usize = 5_000;
/// Most work, in units of some microsecond and at most 100 bytes, on one function and on all of them.
const FUNCTION_WORK_MAX: usize = 8_000_000;
const WORK_MAX: usize = 100_000_000;
/// A loop costs a unit of work for each so many loops around it, and a block for each so many blocks of the function.
const LOOPS_PER_WORK: usize = 8;
const BLOCKS_PER_WORK: usize = 400;
/// Units of work for each result of a call or a block.
const WORK_PER_RESULT: usize = 16;

/// The functions of all core modules so far.
#[derive(Default)]
pub(super) struct Code {
    bytes: usize,
    work: usize,
    /// The most results of a type of the module that is being read.
    results_max: usize,
    /// Whether each block that is open is a loop; kept for its memory.
    blocks: Vec<bool>,
}

impl Code {
    pub(super) fn enter_module(&mut self) {
        self.results_max = 0;
    }

    pub(super) fn of_type(&mut self, results: usize) {
        self.results_max = self.results_max.max(results);
    }

    pub(super) fn function(&mut self, body: &FunctionBody<'_>) -> Result<(), LoadError> {
        let function_bytes = body.range().len();
        bound("bytes in one function", function_bytes, FUNCTION_BYTES_MAX)?;
        add("bytes of code", &mut self.bytes, function_bytes, CODE_BYTES_MAX)?;
        let work = self.work_on(body)?;
        bound("units of work to compile one function", work, FUNCTION_WORK_MAX)?;
        add("units of work to compile", &mut self.work, work, WORK_MAX)
    }

    fn work_on(&mut self, body: &FunctionBody<'_>) -> Result<usize, LoadError> {
        let (mut blocks, mut uses, mut calls, mut nested) = (0usize, 0usize, 0usize, 0usize);
        let mut loops_open = 0;
        self.blocks.clear();
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            let operator = operators.read()?;
            match operator {
                Operator::Block { .. } | Operator::If { .. } | Operator::Loop { .. } | Operator::TryTable { .. } => {
                    let is_loop = matches!(operator, Operator::Loop { .. });
                    loops_open += usize::from(is_loop);
                    nested += if is_loop { loops_open } else { 0 };
                    blocks += 1;
                    self.blocks.push(is_loop);
                    bound("blocks inside one another", self.blocks.len(), DEPTH_MAX)?;
                }
                Operator::End => loops_open -= usize::from(self.blocks.pop() == Some(true)),
                Operator::LocalGet { .. } | Operator::LocalSet { .. } | Operator::LocalTee { .. } => uses += 1,
                Operator::Call { .. } | Operator::CallIndirect { .. } | Operator::CallRef { .. } => calls += 1,
                _ => {}
            }
        }
        let mut locals = 0usize;
        for of_type in body.get_locals_reader()? {
            locals = locals.saturating_add(of_type?.0 as usize);
        }
        // Parameters are locals too, of which a function has few.
        let live = locals.saturating_add(16).min(uses);
        let of_results = (calls + blocks).saturating_mul(self.results_max * WORK_PER_RESULT);
        let of_blocks = blocks.saturating_mul(live + blocks / BLOCKS_PER_WORK);
        Ok(of_results.saturating_add(of_blocks).saturating_add(nested / LOOPS_PER_WORK))
    }
}
