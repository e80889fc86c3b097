//! Components made to hurt the host are refused at load, in bounded time and memory, with a reason that says what is
//! wrong.

mod making;

use super::*;
use making::*;
use std::ops::Range;
use std::process::Stdio;

/// Set for the process that measures itself.
const ALONE: &str = "SLUICEBOX_TEST_ALONE";
/// Far above what was seen; without bounds, one of the cases alone takes 1.5 GiB.
const PEAK_BYTES_MAX: u64 = 1 << 30;
/// Against hanging: without bounds, one of the cases alone takes hours.
const TIME_MAX: Duration = Duration::from_secs(300);

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
    SANDBOXES.load(&never_instantiated(&vec![data(2048, &[0, 16 << 20]); 28])).unwrap();
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
