//! Components made to be slow, large, or more than they seem.

use wasm_encoder::{
    Alias, BlockType, CodeSection, Component, ComponentExportKind, ComponentExportSection, ComponentImportSection,
    ComponentInstanceSection, ComponentOuterAliasKind, ComponentSectionId, ComponentTypeRef, ComponentTypeSection,
    ConstExpr, DataSection, EntityType, ExportKind, ExportSection, Function, FunctionSection, ImportSection,
    InstanceSection, InstanceType, MemorySection, MemoryType, ModuleArg, ModuleSection, NestedComponentSection,
    RawSection, RefType, TableSection, TableType, TypeSection, ValType,
};

pub type Core = wasm_encoder::Module;

/// A core module of functions without parameters, all exported under a number, so that none is left out.
pub fn functions(bodies: &[Function]) -> Core {
    let (mut types, mut functions, mut exports, mut code) =
        (TypeSection::new(), FunctionSection::new(), ExportSection::new(), CodeSection::new());
    types.ty().function([], []);
    for (number, body) in bodies.iter().enumerate() {
        functions.function(0);
        exports.export(&number.to_string(), ExportKind::Func, number as u32);
        code.function(body);
    }
    let mut core = Core::new();
    core.section(&types).section(&functions).section(&exports).section(&code);
    core
}

pub fn function(locals: u32, body: impl FnOnce(&mut Function)) -> Function {
    let mut function = Function::new([(locals, ValType::I32)]);
    body(&mut function);
    function.instructions().end();
    function
}

pub fn calls(count: usize) -> Function {
    function(0, |function| {
        for _ in 0..count {
            function.instructions().call(0);
        }
    })
}

pub fn nested_loops(depth: usize) -> Function {
    function(0, |function| {
        for _ in 0..depth {
            function.instructions().loop_(BlockType::Empty);
        }
        for _ in 0..depth {
            function.instructions().end();
        }
    })
}

/// Each loop uses a local of its own, and all live across all of them.
pub fn loops_over_locals(count: u32) -> Function {
    function(count, |function| {
        for local in 0..count {
            function.instructions().loop_(BlockType::Empty).local_get(local).br_if(0).end();
        }
    })
}

pub fn ifs(count: usize) -> Function {
    function(0, |function| {
        for _ in 0..count {
            function.instructions().i32_const(1).if_(BlockType::Empty).end();
        }
    })
}

/// A function that passes its results to itself again and again: 2 bytes each time.
pub fn many_results(results: usize, calls: usize) -> Core {
    let mut types = TypeSection::new();
    types.ty().function(vec![ValType::I64; results], vec![ValType::I64; results]);
    let mut functions = FunctionSection::new();
    functions.function(0);
    let mut code = CodeSection::new();
    code.function(&function(0, |function| {
        for local in 0..results {
            function.instructions().local_get(local as u32);
        }
        for _ in 0..calls {
            function.instructions().call(0);
        }
    }));
    let mut core = Core::new();
    core.section(&types).section(&functions).section(&code);
    core
}

pub fn memory(pages: u64) -> MemoryType {
    MemoryType { minimum: pages, maximum: None, memory64: false, shared: false, page_size_log2: None }
}

/// A core module with a memory, and one byte of data at each of some places.
pub fn data(pages: u64, at: &[i32]) -> Core {
    let (mut memories, mut data) = (MemorySection::new(), DataSection::new());
    memories.memory(memory(pages));
    for &at in at {
        data.active(0, &ConstExpr::i32_const(at), [1]);
    }
    let mut core = Core::new();
    core.section(&memories).section(&data);
    core
}

pub fn giant_data(bytes: usize) -> Core {
    let (mut memories, mut data) = (MemorySection::new(), DataSection::new());
    memories.memory(memory(1024));
    data.active(0, &ConstExpr::i32_const(0), vec![7; bytes]);
    let mut core = Core::new();
    core.section(&memories).section(&data);
    core
}

pub fn table(elements: u64) -> Core {
    let mut tables = TableSection::new();
    let element_type = RefType::FUNCREF;
    tables.table(TableType { element_type, minimum: elements, maximum: None, table64: false, shared: false });
    let mut core = Core::new();
    core.section(&tables);
    core
}

/// A component of these core modules, each of them instantiated.
pub fn component(cores: &[Core]) -> Vec<u8> {
    let mut component = Component::new();
    for core in cores {
        component.section(&ModuleSection(core));
    }
    let mut instances = InstanceSection::new();
    for core in 0..cores.len() as u32 {
        instances.instantiate::<[(&str, ModuleArg); 0], &str>(core, []);
    }
    component.section(&instances);
    component.finish()
}

/// A component of parts that each have one of these core modules, which are compiled and never run.
pub fn never_instantiated(cores: &[Core]) -> Vec<u8> {
    let mut component = Component::new();
    for core in cores {
        let mut part = Component::new();
        part.section(&ModuleSection(core));
        component.section(&NestedComponentSection(&part));
    }
    component.finish()
}

/// A component that imports an empty instance under each of these names.
pub fn importing(names: impl Iterator<Item = String>) -> Vec<u8> {
    let (mut types, mut imports) = (ComponentTypeSection::new(), ComponentImportSection::new());
    types.instance(&InstanceType::new());
    for name in names {
        imports.import(&name, ComponentTypeRef::Instance(0));
    }
    let mut component = Component::new();
    component.section(&types).section(&imports);
    component.finish()
}

/// A component inside a component inside a component.
pub fn nested(depth: usize) -> Component {
    let mut component = Component::new();
    if depth > 1 {
        component.section(&NestedComponentSection(&nested(depth - 1)));
    }
    component
}

/// Each component instantiates the one before it twice.
pub fn doubling(times: u32) -> Vec<u8> {
    let mut component = Component::new();
    component.section(&NestedComponentSection(&Component::new()));
    for number in 0..times {
        let (mut aliases, mut instances) =
            (wasm_encoder::ComponentAliasSection::new(), ComponentInstanceSection::new());
        aliases.alias(Alias::Outer { kind: ComponentOuterAliasKind::Component, count: 1, index: number });
        for _ in 0..2 {
            instances.instantiate::<[(&str, ComponentExportKind, u32); 0], &str>(0, []);
        }
        let mut twice = Component::new();
        twice.section(&aliases).section(&instances);
        component.section(&NestedComponentSection(&twice));
    }
    let mut instances = ComponentInstanceSection::new();
    instances.instantiate::<[(&str, ComponentExportKind, u32); 0], &str>(times, []);
    component.section(&instances);
    component.finish()
}

/// Instance types inside one another: 3 bytes for each.
pub fn nested_types(depth: usize) -> Vec<u8> {
    let types = [&[1][..], &[0x42, 1, 1].repeat(depth - 1), &[0x42, 0]].concat();
    let mut component = Component::new();
    component.section(&RawSection { id: ComponentSectionId::Type.into(), data: &types });
    component.finish()
}

pub fn core_types(count: usize, parameters: usize) -> Core {
    let mut types = TypeSection::new();
    (0..count).for_each(|_| types.ty().function(vec![ValType::I64; parameters], []));
    let mut core = Core::new();
    core.section(&types);
    core
}

pub fn core_imports(count: usize) -> Core {
    let (mut types, mut imports) = (TypeSection::new(), ImportSection::new());
    types.ty().function([], []);
    for _ in 0..count {
        imports.import("a", "b", EntityType::Function(0));
    }
    let mut core = Core::new();
    core.section(&types).section(&imports);
    core
}

pub fn importing_a_component() -> Vec<u8> {
    let (mut types, mut imports) = (ComponentTypeSection::new(), ComponentImportSection::new());
    types.component(&wasm_encoder::ComponentType::new());
    imports.import("part", ComponentTypeRef::Component(0));
    let mut component = Component::new();
    component.section(&types).section(&imports);
    component.finish()
}

pub fn of_another_world() -> Vec<u8> {
    let mut exports = ComponentExportSection::new();
    exports.export("run", ComponentExportKind::Module, 0, None);
    let mut component = Component::new();
    component.section(&ModuleSection(&Core::new())).section(&exports);
    component.finish()
}
