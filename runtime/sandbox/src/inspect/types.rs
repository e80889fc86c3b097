//! How deep types of components and instances are nested in one another.
//!
//! wasmparser, and with it the compiler, reads them recursively and without a bound: some hundred kilobytes of nested types
//! would overflow the stack and end the host. Here they are read with a stack of their own.

use super::bound;
use crate::error::LoadError;
use wasmparser::{
    BinaryReader, ComponentAlias, ComponentExternName, ComponentImport, ComponentType, ComponentTypeRef, CoreType,
};

/// Most types inside one another. Tools nest three or four.
const DEPTH_MAX: usize = 32;

/// The bytes that begin the type of a component and of an instance.
const COMPONENT: u8 = 0x41;
const INSTANCE: u8 = 0x42;

/// Checks the content of one section of types, which begins at `offset`.
pub(super) fn check_depth(section: &[u8], offset: usize) -> Result<(), LoadError> {
    let mut reader = BinaryReader::new(section, offset);
    let types = reader.read_var_u32()?;
    // Declarations left in each type that is being read; the section is the outermost.
    let mut left = vec![types];
    while let Some(declarations) = left.last_mut() {
        if *declarations == 0 {
            left.pop();
            continue;
        }
        *declarations -= 1;
        let is_type = left.len() == 1 || is_type_after_reading_others(&mut reader)?;
        if !is_type {
            continue;
        }
        let mut ahead = reader.clone();
        if matches!(ahead.read_u8()?, COMPONENT | INSTANCE) {
            left.push(ahead.read_var_u32()?);
            reader = ahead;
            bound("types inside one another", left.len() - 1, DEPTH_MAX)?;
        } else {
            reader.read::<ComponentType>()?;
        }
    }
    Ok(())
}

/// Reads a declaration inside a type, unless it is one of a type again: then only what announces it.
fn is_type_after_reading_others(reader: &mut BinaryReader<'_>) -> Result<bool, LoadError> {
    match reader.read_u8()? {
        0x00 => {
            reader.read::<CoreType>()?;
        }
        0x01 => return Ok(true),
        0x02 => {
            reader.read::<ComponentAlias>()?;
        }
        0x03 => {
            reader.read::<ComponentImport>()?;
        }
        0x04 => {
            reader.read::<ComponentExternName>()?;
            reader.read::<ComponentTypeRef>()?;
        }
        other => return Err(LoadError::malformed(format!("no declaration of a type begins with {other:#x}"))),
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One type of so many instance types inside one another, the innermost empty.
    fn nested(depth: usize) -> Vec<u8> {
        [&[1][..], &[INSTANCE, 1, 1].repeat(depth - 1), &[INSTANCE, 0]].concat()
    }

    #[test]
    fn nesting_beyond_the_bound_is_refused_however_deep() {
        assert!(check_depth(&nested(DEPTH_MAX), 0).is_ok());
        for depth in [DEPTH_MAX + 1, 1_000_000] {
            let error = check_depth(&nested(depth), 0).unwrap_err().to_string();
            assert!(error.contains("33 types inside one another, at most 32"), "{error}");
        }
    }

    #[test]
    fn types_side_by_side_are_not_nested() {
        let one = [INSTANCE, 1, 1, INSTANCE, 0];
        let many = [&[100][..], &one.repeat(100)].concat();
        assert!(check_depth(&many, 0).is_ok());
    }

    #[test]
    fn a_section_that_ends_too_early_or_has_other_things_is_malformed() {
        for section in
            [&[][..], &[1], &[1, INSTANCE], &[1, INSTANCE, 5], &[1, INSTANCE, 1, 9], &[255, 255, 255, 255, 15]]
        {
            let error = check_depth(section, 0).unwrap_err();
            assert!(matches!(error, LoadError::Malformed { .. }), "{error}");
        }
    }
}
