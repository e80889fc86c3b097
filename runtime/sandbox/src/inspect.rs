//! A look at a component before it is compiled, so that what it costs to compile is bounded in time and memory.
//!
//! The compiler is fast on code that people write and has no bound on code that was made to be slow: 64 KiB of nested loops
//! take it a minute. So the counts and sizes that it depends on are bounded here, in one pass that trusts nothing, does
//! not recurse, and stores a few bytes for each thing. Every bound is far above what language runtimes compiled to
//! components have; whether the rest is valid is for the compiler to say.

mod function;
mod instances;
mod types;

use super::error::LoadError;
use super::limits::{TABLE_ELEMENTS_MAX, TABLES_MAX};
use function::Code;
use instances::Instances;
use wasmparser::{BinaryReaderError, CompositeInnerType, Encoding, Parser, Payload, SectionLimited};

/// Most core modules and components inside a component. Compositions have some hundred.
const PARTS_MAX: usize = 256;
/// Most components inside one another. Tools nest two or three.
const PARTS_DEPTH_MAX: usize = 16;
/// Most imports of all components in it. A guest of all of WASI has some thirty.
const IMPORTS_MAX: usize = 256;
/// Most imports of all core modules: dynamic linking (Python) needs some thousand.
const CORE_IMPORTS_MAX: usize = 20_000;
/// Most bytes of what is not code or data: types, aliases, instances, imports, exports. Read, they take some 50 times that.
const STRUCTURE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Most functions of all core modules: 10 KB and 60 µs for each that is exported. Language runtimes have some 20,000.
const FUNCTIONS_MAX: usize = 100_000;
/// Most types of core functions, and most parameters and results of all of them: each type may need code to pass them.
const CORE_TYPES_MAX: usize = 20_000;
const CORE_PARAMETERS_MAX: usize = 200_000;
/// Most globals, exports and elements of all core modules.
const CORE_ITEMS_MAX: usize = 500_000;
/// Most bytes of memory that core modules begin with: what a 32-bit memory can be.
const MEMORY_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// Refuses what would cost too much to compile.
pub(super) fn inspect(bytes: &[u8]) -> Result<(), LoadError> {
    // The parser would show a dump of bytes.
    if bytes.is_empty() {
        return Err(LoadError::malformed("the file is empty"));
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(LoadError::malformed("the file does not begin with `\\0asm`: is it another file?"));
    }
    let mut inspection = Inspection::default();
    for (index, payload) in Parser::new(0).parse_all(bytes).enumerate() {
        let payload = payload?;
        if let (0, Payload::Version { encoding: Encoding::Module, .. }) = (index, &payload) {
            return Err(LoadError::CoreModule);
        }
        inspection.payload(payload, bytes)?;
    }
    Ok(())
}

impl From<BinaryReaderError> for LoadError {
    fn from(error: BinaryReaderError) -> Self {
        match error.message().starts_with("unexpected end") {
            true => Self::malformed(format!("{error}: was the file written whole?")),
            false => Self::malformed(error),
        }
    }
}

/// What was counted so far, over all parts.
#[derive(Default)]
struct Inspection {
    parts: usize,
    /// Of the part that is being read, and of those around it.
    encodings: Vec<Encoding>,
    instances: Instances,
    code: Code,
    structure_bytes: usize,
    imports: usize,
    core_imports: usize,
    functions: usize,
    core_types: usize,
    core_parameters: usize,
    core_items: usize,
    tables: usize,
    table_elements: u64,
    memory_bytes: u64,
}

impl Inspection {
    fn payload(&mut self, payload: Payload<'_>, bytes: &[u8]) -> Result<(), LoadError> {
        match payload {
            Payload::Version { encoding, .. } => {
                add("parts", &mut self.parts, 1, PARTS_MAX)?;
                self.encodings.push(encoding);
                bound("parts inside one another", self.encodings.len(), PARTS_DEPTH_MAX)?;
                match encoding {
                    Encoding::Component => self.instances.enter(),
                    Encoding::Module => self.code.enter_module(),
                }
            }
            Payload::End(_) => {
                if self.encodings.pop() == Some(Encoding::Component) {
                    self.instances.leave();
                }
            }
            // Of components.
            Payload::ComponentTypeSection(section) => {
                // Before anything reads it: wasmparser would recurse.
                types::check_depth(&bytes[section.range()], section.range().start)?;
                self.structure(&section)?;
            }
            Payload::CoreTypeSection(section) => self.structure(&section)?,
            Payload::ComponentCanonicalSection(section) => self.structure(&section)?,
            Payload::ComponentImportSection(section) => {
                self.structure(&section)?;
                add("imports", &mut self.imports, section.count() as usize, IMPORTS_MAX)?;
                section.into_iter().try_for_each(|import| self.instances.import(&import?))?;
            }
            Payload::ComponentExportSection(section) => {
                self.structure(&section)?;
                section.into_iter().try_for_each(|export| self.instances.export(&export?))?;
            }
            Payload::ComponentAliasSection(section) => {
                self.structure(&section)?;
                section.into_iter().try_for_each(|alias| self.instances.alias(&alias?))?;
            }
            Payload::InstanceSection(section) => {
                self.structure(&section)?;
                section.into_iter().try_for_each(|instance| self.instances.core_instance(&instance?))?;
            }
            Payload::ComponentInstanceSection(section) => {
                self.structure(&section)?;
                section.into_iter().try_for_each(|instance| self.instances.instance(&instance?))?;
            }
            payload => self.core_payload(payload)?,
        }
        Ok(())
    }

    fn core_payload(&mut self, payload: Payload<'_>) -> Result<(), LoadError> {
        match payload {
            Payload::TypeSection(section) => {
                add("core types", &mut self.core_types, section.count() as usize, CORE_TYPES_MAX)?;
                for group in section {
                    for of_type in group?.types() {
                        if let CompositeInnerType::Func(function) = &of_type.composite_type.inner {
                            self.code.of_type(function.results().len());
                            let count = function.params().len() + function.results().len();
                            add("core parameters", &mut self.core_parameters, count, CORE_PARAMETERS_MAX)?;
                        }
                    }
                }
            }
            Payload::ImportSection(section) => {
                add("core imports", &mut self.core_imports, section.count() as usize, CORE_IMPORTS_MAX)?;
            }
            Payload::FunctionSection(section) => {
                add("functions", &mut self.functions, section.count() as usize, FUNCTIONS_MAX)?;
            }
            Payload::TableSection(section) => {
                add("tables", &mut self.tables, section.count() as usize, TABLES_MAX as usize)?;
                for table in section {
                    self.table_elements = self.table_elements.saturating_add(table?.ty.initial);
                }
                bound("table elements", saturated(self.table_elements), TABLE_ELEMENTS_MAX)?;
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    let memory = memory?;
                    let page_bytes = 1u64.checked_shl(memory.page_size_log2.unwrap_or(16)).unwrap_or(u64::MAX);
                    let bytes = memory.initial.saturating_mul(page_bytes);
                    self.memory_bytes = self.memory_bytes.saturating_add(bytes);
                }
                bound("bytes of memory", saturated(self.memory_bytes), saturated(MEMORY_BYTES_MAX))?;
            }
            Payload::GlobalSection(section) => self.core_items("globals", &section)?,
            Payload::ExportSection(section) => self.core_items("core exports", &section)?,
            Payload::ElementSection(section) => self.core_items("element segments", &section)?,
            Payload::CodeSectionEntry(body) => self.code.function(&body)?,
            _ => {}
        }
        Ok(())
    }

    fn structure<T>(&mut self, section: &SectionLimited<'_, T>) -> Result<(), LoadError> {
        add("bytes of types and instances", &mut self.structure_bytes, section.range().len(), STRUCTURE_BYTES_MAX)
    }

    fn core_items<T>(&mut self, what: &'static str, section: &SectionLimited<'_, T>) -> Result<(), LoadError> {
        add(what, &mut self.core_items, section.count() as usize, CORE_ITEMS_MAX)
    }
}

/// Counts, up to a bound.
fn add(what: &'static str, counted: &mut usize, more: usize, max: usize) -> Result<(), LoadError> {
    *counted = counted.saturating_add(more);
    bound(what, *counted, max)
}

pub(super) fn bound(what: &'static str, found: usize, max: usize) -> Result<(), LoadError> {
    if found > max { Err(LoadError::Bound { what, found, max }) } else { Ok(()) }
}

fn saturated(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

    #[track_caller]
    fn refused(bytes: &[u8], expected: &str) {
        let error = inspect(bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn what_is_no_component_is_refused_before_it_is_compiled() {
        refused(b"", "not a WebAssembly component: the file is empty");
        refused(b"\x7fELF", "not a WebAssembly component: the file does not begin with `\\0asm`: is it another file?");
        refused(b"\0asm\x0d\0\x01\0\x01\x20", "was the file written whole?");
        refused(b"\0asm\x01\0\0\0", "build it for the target wasm32-wasip2");
    }

    #[test]
    fn a_component_of_too_many_parts_is_refused() {
        // Section 4 is a nested component, here an empty one of 8 bytes.
        let nested = [&[4u8, 8], COMPONENT].concat();
        let few = [COMPONENT, &nested].concat();
        assert!(inspect(&few).is_ok());
        let many = [COMPONENT, &nested.repeat(PARTS_MAX)].concat();
        refused(&many, "parts, at most 256");
    }
}
