//! Components made to hurt the host are refused at load, in bounded time and memory, with a reason that says what is
//! wrong.

use super::*;
use std::ops::Range;
use std::process::Stdio;
use wasm_encoder::{
    Alias, BlockType, CodeSection, Component, ComponentExportKind, ComponentExportSection, ComponentImportSection,
    ComponentInstanceSection, ComponentOuterAliasKind, ComponentSectionId, ComponentTypeRef, ComponentTypeSection,
    ConstExpr, DataSection, EntityType, ExportKind, ExportSection, Function, FunctionSection, ImportSection,
    InstanceSection, InstanceType, MemorySection, MemoryType, ModuleArg, ModuleSection, NestedComponentSection,
    RawSection, RefType, TableSection, TableType, TypeSection, ValType,
};

/// Set for the process that measures itself.
const ALONE: &str = "SLUICEBOX_TEST_ALONE";
/// Far above what was seen; without bounds, one of the cases alone takes 1.5 GiB.
const PEAK_BYTES_MAX: u64 = 1 << 30;
/// Against hanging: without bounds, one of the cases alone takes hours.
const TIME_MAX: Duration = Duration::from_secs(300);

type Core = wasm_encoder::Module;

/// A core module of functions without parameters, all exported under a number, so that none is left out.
fn functions(bodies: &[Function]) -> Core {
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

fn function(locals: u32, body: impl FnOnce(&mut Function)) -> Function {
    let mut function = Function::new([(locals, ValType::I32)]);
    body(&mut function);
    function.instructions().end();
    function
}

fn calls(count: usize) -> Function {
    function(0, |function| {
        for _ in 0..count {
            function.instructions().call(0);
        }
    })
}

fn nested_loops(depth: usize) -> Function {
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
fn loops_over_locals(count: u32) -> Function {
    function(count, |function| {
        for local in 0..count {
            function.instructions().loop_(BlockType::Empty).local_get(local).br_if(0).end();
        }
    })
}

fn ifs(count: usize) -> Function {
    function(0, |function| {
        for _ in 0..count {
            function.instructions().i32_const(1).if_(BlockType::Empty).end();
        }
    })
}

/// A function that passes its results to itself again and again: 2 bytes each time.
fn many_results(results: usize, calls: usize) -> Core {
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

fn memory(pages: u64) -> MemoryType {
    MemoryType { minimum: pages, maximum: None, memory64: false, shared: false, page_size_log2: None }
}

/// A core module with a memory, and one byte of data at each of some places.
fn data(pages: u64, at: &[i32]) -> Core {
    let (mut memories, mut data) = (MemorySection::new(), DataSection::new());
    memories.memory(memory(pages));
    for &at in at {
        data.active(0, &ConstExpr::i32_const(at), [1]);
    }
    let mut core = Core::new();
    core.section(&memories).section(&data);
    core
}

fn giant_data(bytes: usize) -> Core {
    let (mut memories, mut data) = (MemorySection::new(), DataSection::new());
    memories.memory(memory(1024));
    data.active(0, &ConstExpr::i32_const(0), vec![7; bytes]);
    let mut core = Core::new();
    core.section(&memories).section(&data);
    core
}

fn table(elements: u64) -> Core {
    let mut tables = TableSection::new();
    let element_type = RefType::FUNCREF;
    tables.table(TableType { element_type, minimum: elements, maximum: None, table64: false, shared: false });
    let mut core = Core::new();
    core.section(&tables);
    core
}

/// A component of these core modules, each of them instantiated.
fn component(cores: &[Core]) -> Vec<u8> {
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

/// A component that imports an empty instance under each of these names.
fn importing(names: impl Iterator<Item = String>) -> Vec<u8> {
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
fn nested(depth: usize) -> Component {
    let mut component = Component::new();
    if depth > 1 {
        component.section(&NestedComponentSection(&nested(depth - 1)));
    }
    component
}

/// Each component instantiates the one before it twice.
fn doubling(times: u32) -> Vec<u8> {
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
fn nested_types(depth: usize) -> Vec<u8> {
    let types = [&[1][..], &[0x42, 1, 1].repeat(depth - 1), &[0x42, 0]].concat();
    let mut component = Component::new();
    component.section(&RawSection { id: ComponentSectionId::Type.into(), data: &types });
    component.finish()
}

fn core_types(count: usize, parameters: usize) -> Core {
    let mut types = TypeSection::new();
    (0..count).for_each(|_| types.ty().function(vec![ValType::I64; parameters], []));
    let mut core = Core::new();
    core.section(&types);
    core
}

fn core_imports(count: usize) -> Core {
    let (mut types, mut imports) = (TypeSection::new(), ImportSection::new());
    types.ty().function([], []);
    for _ in 0..count {
        imports.import("a", "b", EntityType::Function(0));
    }
    let mut core = Core::new();
    core.section(&types).section(&imports);
    core
}

fn importing_a_component() -> Vec<u8> {
    let (mut types, mut imports) = (ComponentTypeSection::new(), ComponentImportSection::new());
    types.component(&wasm_encoder::ComponentType::new());
    imports.import("part", ComponentTypeRef::Component(0));
    let mut component = Component::new();
    component.section(&types).section(&imports);
    component.finish()
}

fn of_another_world() -> Vec<u8> {
    let mut exports = ComponentExportSection::new();
    exports.export("run", ComponentExportKind::Module, 0, None);
    let mut component = Component::new();
    component.section(&ModuleSection(&Core::new())).section(&exports);
    component.finish()
}

fn refusal(bytes: &[u8]) -> String {
    match SANDBOXES.load(bytes).and_then(|module| SANDBOXES.handler(&module, settings("refused"))) {
        Ok(_) => panic!("it should be refused"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn hostile_components_are_refused_with_a_reason() {
    const LARGE: Range<usize> = 0..70;
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![0; (64 << 20) + 1], "the module has 67108865 bytes, at most 67108864 are allowed"),
        (b"\0asm\x01\0\0\0".to_vec(), "it is a core module, not a component: build it for the target wasm32-wasip2"),
        (of_another_world(), "it exports no `sluicebox:handler/handler` of a version this host knows, only: run"),
        (component(&[table(4_000_000_000)]), "the module has 4000000000 table elements, at most 100000 are allowed"),
        (component(&[table(60_000), table(60_000)]), "the module has 120000 table elements, at most 100000"),
        (component(&[data(65536, &[]), data(1, &[])]), "the module has 4295032832 bytes of memory, at most 4294967296"),
        (
            component(&[data(32768, &[])]),
            "it has a memory of 2147483648 bytes to begin with, and the handler has 67108864: raise `memory` in [handlers.refused]",
        ),
        (importing((0..300).map(|n| format!("a:b/i{n}"))), "the module has 300 imports, at most 256 are allowed"),
        (component(&[core_imports(20_001)]), "the module has 20001 core imports, at most 20000 are allowed"),
        (component(&[core_types(20_001, 0)]), "the module has 20001 core types, at most 20000 are allowed"),
        (component(&[core_types(201, 1000)]), "the module has 201000 core parameters, at most 200000 are allowed"),
        (component(&vec![Core::new(); 256]), "the module has 257 parts, at most 256 are allowed"),
        (nested(17).finish(), "the module has 17 parts inside one another, at most 16 are allowed"),
        (nested_types(33), "the module has 33 types inside one another, at most 32 are allowed"),
        // Without a bound, a stack overflow, which ends the process.
        (nested_types(500_000), "the module has 33 types inside one another, at most 32 are allowed"),
        // 2^60 instances.
        (doubling(60), "instances, at most 256 are allowed"),
        (importing_a_component(), "a component is imported or taken out of an instance"),
        (component(&[functions(&vec![calls(0); 100_001])]), "the module has 100001 functions, at most 100000"),
        (component(&[functions(&[calls(262_144)])]), "bytes in one function, at most 524288 are allowed"),
        (
            component(&[functions(&LARGE.map(|_| calls(250_000)).collect::<Vec<_>>())]),
            "bytes of code, at most 33554432",
        ),
        (
            component(&[functions(&[nested_loops(20_000)])]),
            "the module has 5001 blocks inside one another, at most 5000",
        ),
        (
            component(&[functions(&[loops_over_locals(5000)])]),
            "units of work to compile one function, at most 8000000 are allowed",
        ),
        (
            component(&[functions(&vec![loops_over_locals(2000); 26])]),
            "units of work to compile, at most 100000000 are allowed",
        ),
        (component(&[functions(&[ifs(60_000)])]), "units of work to compile one function, at most"),
        (component(&[many_results(100, 11_000)]), "units of work to compile one function, at most"),
        // Valid sections, and code that is not.
        (
            component(&[functions(&[function(0, |body| {
                body.instructions().i32_add();
            })])]),
            "cannot be compiled",
        ),
    ];
    for (bytes, expected) in cases {
        let error = refusal(&bytes);
        assert!(error.contains(expected), "{expected:?}, but it is {error:?}");
        assert!(error.len() < 2048, "{error}");
    }
    report_peak();
}

#[test]
fn names_of_any_length_make_no_long_message() {
    let error = refusal(&importing(std::iter::once(format!("a:b/{}", "i".repeat(90_000)))));
    assert!(error.contains("it imports `a:b/iiii") && error.len() < 2048, "{error}");
}

#[test]
fn what_is_just_within_the_bounds_compiles_in_bounded_memory() {
    // Parts whose data are 16 MiB apart: half a gigabyte if each were kept as a whole. Then some of the slowest functions.
    let sparse: Vec<Core> = (0..4).map(|_| data(2048, &[0, 16 << 20])).collect();
    let module = SANDBOXES.load(&component(&sparse)).unwrap();
    let error = SANDBOXES.handler(&module, settings("sparse")).err().unwrap().to_string();
    assert!(error.contains("bytes to begin with, and the handler has 67108864"), "{error}");
    let parts: Vec<Component> = (0..28)
        .map(|_| {
            let mut part = Component::new();
            part.section(&ModuleSection(&data(2048, &[0, 16 << 20])));
            part
        })
        .collect();
    let mut component_of_parts = Component::new();
    for part in &parts {
        component_of_parts.section(&NestedComponentSection(part));
    }
    SANDBOXES.load(&component_of_parts.finish()).unwrap();
    SANDBOXES.load(&component(&[giant_data(60 << 20)])).unwrap();
    SANDBOXES.load(&component(&[functions(&[calls(262_100)])])).unwrap();
    SANDBOXES.load(&component(&[functions(&[loops_over_locals(2000)])])).unwrap();
    SANDBOXES.load(&component(&[many_results(100, 4900)])).unwrap();
    report_peak();
}

#[test]
fn random_bytes_are_refused() {
    let mut state = 1u64;
    let mut random = move || {
        // Steele, Lea, Flood: SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) as u8
    };
    for length in 1..500 {
        let noise: Vec<u8> = (0..length).map(|_| random()).collect();
        assert!(SANDBOXES.load(&noise).is_err());
        // Behind the header of a component, as a section of each kind.
        let section = [b"\0asm\x0d\0\x01\0", &[1 + random() % 12, length.min(127) as u8][..], &noise].concat();
        assert!(!refusal(&section).is_empty());
    }
}

/// Says how much memory this process had at most, for the one that waits for it.
fn report_peak() {
    if std::env::var_os(ALONE).is_some() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        println!("{}", status.lines().find(|line| line.starts_with("VmHWM:")).unwrap());
    }
}

#[tokio::test]
async fn hostile_components_cost_bounded_time_and_memory() {
    for name in
        ["hostile_components_are_refused_with_a_reason", "what_is_just_within_the_bounds_compiles_in_bounded_memory"]
    {
        let mut alone = tokio::process::Command::new(std::env::current_exe().unwrap());
        alone.args(["--exact", "--nocapture", &format!("sandbox::components::{name}")]).env(ALONE, "1");
        let output = alone.stdout(Stdio::piped()).kill_on_drop(true).output();
        let output = tokio::time::timeout(TIME_MAX, output).await.expect("it hangs").unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{said}");
        let peak = said.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it says its peak");
        let peak_bytes = peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024;
        println!("{name}: at most {} MiB", peak_bytes >> 20);
        assert!(peak_bytes < PEAK_BYTES_MAX, "{name} took {peak_bytes} bytes");
    }
}
