//! How many instances a sandbox of the component would have.
//!
//! A component may instantiate one twice that instantiates another one twice, and so on: a few bytes for each doubling. So
//! instances are counted with all that is inside them. That is exact because a component instantiated here was always
//! defined here: those that are handed around as values are refused, and no tool makes them.

use super::bound;
use crate::error::LoadError;
use wasmparser::{
    ComponentAlias, ComponentExport, ComponentExternalKind, ComponentImport, ComponentInstance,
    ComponentOuterAliasKind, ComponentTypeRef, Instance,
};

/// Most instances of core modules and components. A sandbox has at most 64 of core modules.
const INSTANCES_MAX: usize = 256;

#[derive(Default)]
pub(super) struct Instances {
    /// The components that are being read, the outermost first.
    frames: Vec<Frame>,
}

#[derive(Default)]
struct Frame {
    /// Instances inside one instance of each component of its index space.
    components: Vec<usize>,
    instances: usize,
}

impl Instances {
    pub(super) fn enter(&mut self) {
        self.frames.push(Frame::default());
    }

    pub(super) fn leave(&mut self) {
        if let (Some(inner), Some(outer)) = (self.frames.pop(), self.frames.last_mut()) {
            outer.components.push(inner.instances);
        }
    }

    pub(super) fn import(&mut self, import: &ComponentImport<'_>) -> Result<(), LoadError> {
        match import.ty {
            ComponentTypeRef::Component(_) => Err(handed_around()),
            _ => Ok(()),
        }
    }

    /// What is exported has a second place in the index space.
    pub(super) fn export(&mut self, export: &ComponentExport<'_>) -> Result<(), LoadError> {
        if export.kind == ComponentExternalKind::Component {
            let inside = self.component(0, export.index)?;
            self.define(inside);
        }
        Ok(())
    }

    pub(super) fn alias(&mut self, alias: &ComponentAlias<'_>) -> Result<(), LoadError> {
        match *alias {
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Component, .. } => Err(handed_around()),
            ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, count, index } => {
                let inside = self.component(count, index)?;
                self.define(inside);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn core_instance(&mut self, instance: &Instance<'_>) -> Result<(), LoadError> {
        match instance {
            Instance::Instantiate { .. } => self.add(1),
            Instance::FromExports(_) => Ok(()),
        }
    }

    pub(super) fn instance(&mut self, instance: &ComponentInstance<'_>) -> Result<(), LoadError> {
        match *instance {
            ComponentInstance::Instantiate { component_index, .. } => {
                let inside = self.component(0, component_index)?;
                self.add(inside + 1)
            }
            ComponentInstance::FromExports(_) => Ok(()),
        }
    }

    fn add(&mut self, more: usize) -> Result<(), LoadError> {
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        // Neither is above the bound.
        frame.instances += more;
        bound("instances", frame.instances, INSTANCES_MAX)
    }

    fn define(&mut self, inside: usize) {
        if let Some(frame) = self.frames.last_mut() {
            frame.components.push(inside);
        }
    }

    /// Instances inside a component of the index space `outwards` components around this one.
    fn component(&self, outwards: u32, index: u32) -> Result<usize, LoadError> {
        let frame = self.frames.iter().rev().nth(outwards as usize);
        let inside = frame.and_then(|frame| frame.components.get(index as usize));
        inside.copied().ok_or_else(|| LoadError::malformed(format!("there is no component {index} yet")))
    }
}

fn handed_around() -> LoadError {
    let reason = "a component is imported or taken out of an instance: instantiate it where it is defined";
    LoadError::Unfit { reason: reason.to_owned() }
}
