//! The simulation's own ground: the same seed gives the same trace, byte for byte, and another seed another one.

use std::process::Command;

fn trace_of(seed: u64) -> (String, Vec<u8>) {
    let output = Command::new(env!("CARGO_BIN_EXE_jepsen-sim"))
        .args(["--seed", &seed.to_string(), "--trace"])
        .output()
        .expect("the simulation starts");
    let summary = String::from_utf8(output.stdout).expect("a summary in UTF-8");
    assert!(output.status.success(), "{summary}");
    (summary, output.stderr)
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| trace_of(1));
        let second = scope.spawn(|| trace_of(1));
        (first.join().expect("first run"), second.join().expect("second run"))
    });
    assert!(first.1.len() > 10_000, "a trace that is nearly empty proves nothing: {}", first.0);
    assert_eq!(first.0, second.0);
    assert!(first.1 == second.1, "two runs of a seed differ; compare `jepsen-lite replay --seed 1 --trace`");
    let other = trace_of(2);
    assert!(first.1 != other.1, "the seed does not matter");
}
