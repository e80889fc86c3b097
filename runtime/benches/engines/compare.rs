//! The product against the consumer written by hand, in turns, so that both are of the same moments of the machine.

use crate::engine::{Engine, Took, Work};
use crate::{Arguments, Modes};
use sluicebox::bench::{self, APPENDED, Load};
use sluicebox::invoke::Invoke;
use std::sync::Arc;
use std::time::Duration;

const KEYS: usize = 10_000;
/// Messages one at a time, in each round.
const LATENCIES: usize = 1_000;
const CALL_ROUNDS: usize = 5;

/// A way in which messages come.
struct Input {
    name: &'static str,
    publishing: bool,
    /// Messages of one append to the product.
    appended: usize,
}

const INPUTS: [Input; 3] = [
    Input { name: "filled before", publishing: false, appended: APPENDED },
    Input { name: "filled before, one message an append", publishing: false, appended: 1 },
    Input { name: "publishing in the time", publishing: true, appended: APPENDED },
];

pub async fn measure(engine: &impl Engine, modes: &Modes, arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { messages, rounds, only, .. } = arguments;
    println!(
        "{messages} messages of 100 bytes, {KEYS} keys; the product with 8 shards, key and id by pointer, dedup on; medians of \
         {rounds} rounds in turns, lowest and highest in brackets; µs are of the processor, a message"
    );
    let mut measured = false;
    for (number, input) in INPUTS.iter().enumerate() {
        if input.name.contains(only.as_str()) {
            measured = true;
            throughput(engine, modes, arguments, (number, input)).await?;
        }
    }
    if "one at a time".contains(only.as_str()) {
        measured = true;
        latency(engine, modes, *rounds).await?;
    }
    anyhow::ensure!(measured, "no measurement has `{only}` in its name: try `filled`, `publishing` or `one at a time`");
    Ok(())
}

async fn throughput(
    engine: &impl Engine,
    modes: &Modes,
    arguments: &Arguments,
    (number, input): (usize, &Input),
) -> anyhow::Result<()> {
    let (messages, publishing) = (arguments.messages, input.publishing);
    let mut by_hand = vec![];
    let mut product: [(_, _, Vec<(Took, Duration)>); 2] =
        [("fresh", &modes.fresh, vec![]), ("warm", &modes.warm, vec![])];
    for round in 0..arguments.rounds {
        by_hand.push(engine.by_hand(Work { messages, keys: KEYS, publishing }).await?);
        engine.clear().await?;
        for (mode, invoke, took) in &mut product {
            let call = bench::call_alone(invoke, CALL_ROUNDS, KEYS).await?;
            let load = Load {
                publishing,
                appended: input.appended,
                server: Some(engine.process()),
                ..Load::new(messages, invoke.clone())
            };
            let log = engine.log(&format!("bench-{number}-{mode}-{round}")).await?;
            let ran = bench::run(log, &load).await?;
            engine.clear().await?;
            println!("    {mode}: processor time in µs a message: {}", ran.processor);
            took.push((Took { time: ran.took, used: ran.used, server_used: ran.server_used }, call));
        }
    }
    println!("{}, {}, by hand: {}", engine_name(engine), input.name, Of { took: &by_hand, messages });
    for (mode, _, rounds) in &product {
        let took: Vec<Took> = rounds.iter().map(|(took, _)| *took).collect();
        let ratios = took.iter().zip(&by_hand).map(|(product, by_hand)| ratio(by_hand.time, product.time));
        let calls = rounds.iter().map(|(_, call)| micros(*call));
        let beside = rounds.iter().map(|(took, call)| micros(took.used) / messages as f64 - micros(*call));
        println!(
            "{}, {}, {mode}: {} = {} × by hand; host: a call alone {:.1} µs + {:.1} µs",
            engine_name(engine),
            input.name,
            Of { took: &took, messages },
            Spread::of(ratios).digits(2),
            Spread::of(calls).median,
            Spread::of(beside).median
        );
    }
    Ok(())
}

/// Its name, the product's handler unless it is by hand, and what each round took.
type Contender<'m> = (&'static str, Option<&'m Arc<dyn Invoke>>, Vec<Vec<Duration>>);

async fn latency(engine: &impl Engine, modes: &Modes, rounds: usize) -> anyhow::Result<()> {
    let mut contenders: [Contender; 3] =
        [("by hand", None, vec![]), ("fresh", Some(&modes.fresh), vec![]), ("warm", Some(&modes.warm), vec![])];
    for round in 0..rounds {
        for (name, invoke, took) in &mut contenders {
            took.push(match invoke {
                None => engine.latencies_by_hand(LATENCIES).await?,
                Some(invoke) => {
                    let log = engine.log(&format!("bench-latency-{name}-{round}")).await?;
                    bench::latencies(log, &Load::new(LATENCIES, (*invoke).clone())).await?
                }
            });
            engine.clear().await?;
        }
    }
    let at = |rounds: &[Vec<Duration>], part: f64| {
        Spread::of(rounds.iter().map(|took| micros(took[((took.len() - 1) as f64 * part) as usize]) / 1e3))
    };
    let first = at(&contenders[0].2, 0.5).median;
    for (name, _, rounds) in &contenders {
        let (p50, p99) = (at(rounds, 0.5), at(rounds, 0.99));
        println!(
            "{}, one at a time, {name}: publish to readable output p50 {} ms = {:.2} × by hand, p99 {} ms",
            engine_name(engine),
            p50.digits(2),
            p50.median / first,
            p99.digits(2)
        );
    }
    Ok(())
}

fn engine_name<E: Engine>(_: &E) -> &'static str {
    E::NAME
}

fn ratio(of: Duration, to: Duration) -> f64 {
    of.as_secs_f64() / to.as_secs_f64()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Rounds of one measurement, for people.
struct Of<'t> {
    took: &'t [Took],
    messages: usize,
}

impl std::fmt::Display for Of<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let messages = self.messages as f64;
        let of = |what: fn(&Took) -> Duration| Spread::of(self.took.iter().map(|took| micros(what(took)) / messages));
        let rates = Spread::of(self.took.iter().map(|took| messages / took.time.as_secs_f64()));
        let (host, server) = (of(|took| took.used), of(|took| took.server_used));
        write!(f, "{} messages/s, {:.1} µs + server {:.1} µs", rates.digits(0), host.median, server.median)
    }
}

/// A median between the lowest and the highest.
struct Spread {
    lowest: f64,
    median: f64,
    highest: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |at: usize| values.get(at).copied().unwrap_or(f64::NAN);
        Self { lowest: at(0), median: at(values.len() / 2), highest: at(values.len().saturating_sub(1)) }
    }

    fn digits(&self, digits: usize) -> String {
        format!("{:.digits$} [{:.digits$}, {:.digits$}]", self.median, self.lowest, self.highest)
    }
}
