//! A handler that does what its message says, good or bad: the first word of the body is what to do, the second how much.

use sluicebox_sdk::{Context, Failure, Text, info};
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

thread_local! {
    /// Messages this instance has handled: what a guest's memory keeps.
    static SEEN: Cell<u64> = const { Cell::new(0) };
    static KEPT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

#[sluicebox_sdk::handler]
fn obey(order: Text, cx: &mut Context) -> Result<(), Failure> {
    SEEN.set(SEEN.get() + 1);
    let (what, amount) = order.split_once(' ').unwrap_or((&order, ""));
    let number = || amount.parse::<usize>().map_err(Failure::reject);
    match what {
        "ok" => {}
        // Good ones.
        "count" => {
            let seen: u64 = cx.state("seen")?.unwrap_or_default();
            cx.set_state("seen", &(seen + 1))?;
            cx.count("seen", 1)?;
            cx.publish("out.seen").key(cx.key().unwrap_or_default().to_owned()).json(&(seen + 1))?;
        }
        "count-as" => cx.count(amount, 1)?,
        "seen" => cx.publish("out.seen").json(&SEEN.get())?,
        "echo" => {
            let message = cx.message().clone();
            let text = format!("{message:?}");
            let mut publish = cx.publish("out.echo").id("echo").delay(Duration::from_millis(7));
            for (name, value) in message.headers {
                publish = publish.header(name, value);
            }
            publish.text(text)?;
        }
        "entries" => cx.publish("out.entries").json(&cx.state_names()?)?,
        "delete" => cx.delete_state(amount)?,
        "config" => {
            let value = cx.config(amount).unwrap_or_default();
            cx.publish("out.config").text(value)?;
        }
        "say" => info!("{amount}"),
        "reject" => return Err(Failure::reject(amount)),
        "retry" => return Err(Failure::retry_after(amount, Duration::from_millis(250))),
        "stage-and-reject" => {
            cx.set_state("seen", &1)?;
            cx.count("seen", 1)?;
            cx.publish("out.seen").text("staged")?;
            return Err(Failure::reject("after staging"));
        }
        "nap" => std::thread::sleep(Duration::from_millis(number()? as u64)),
        // Bad ones.
        "spin" => {
            let mut n: u64 = 0;
            loop {
                n = std::hint::black_box(n.wrapping_add(1));
            }
        }
        // Honest work, and much of it.
        "work" => {
            let mut n = 0;
            for _ in 0..number()? {
                n = std::hint::black_box(n + 1);
            }
        }
        // Waits for a moment before each tick could find it at work.
        "dodge" => loop {
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(1) {
                std::hint::black_box(began);
            }
            std::thread::sleep(Duration::from_micros(1));
        },
        "wait" => std::thread::sleep(Duration::MAX),
        "panic" => panic!("{amount}"),
        "exit" => std::process::exit(3),
        "null" => {
            // SAFETY: none, that is the point.
            unsafe { std::ptr::write_volatile(std::hint::black_box(usize::MAX as *mut u8), 1) };
        }
        "recurse" => cx.count("deep", deep(1))?,
        "recurse-in-memory" => cx.count("deep", deep_in_memory(1))?,
        "allocate" => loop {
            KEPT.with_borrow_mut(|kept| kept.push(vec![1; 1 << 20]));
        },
        "keep" => KEPT.with_borrow_mut(|kept| -> Result<(), Failure> {
            kept.push(vec![1; number()?]);
            Ok(())
        })?,
        "flood-effects" => {
            let mut published = 0;
            while cx.publish("out.flood").text("x").is_ok() {
                published += 1;
            }
            return Err(Failure::reject(published));
        }
        "flood-diagnostics" => {
            for n in 0..100_000 {
                println!("line {n}");
                eprintln!("line {n}");
                info!("line {n}");
            }
        }
        "flood-counters" => {
            for n in 0.. {
                cx.count(&format!("n{n}"), 1)?;
            }
        }
        "publish" => cx.publish("out.large").bytes(vec![b'x'; number()?])?,
        "publish-to" => cx.publish(amount).text("x")?,
        "write" => cx.set_state_bytes("large", &vec![b'x'; number()?])?,
        "write-entries" => {
            for n in 0..number()? {
                cx.set_state_bytes(&n.to_string(), b"x")?;
            }
        }
        "bad-utf8" => {
            // SAFETY: none, that is the point.
            return Err(Failure::reject(unsafe { String::from_utf8_unchecked(vec![0xff, 0xfe]) }));
        }
        "open-file" => return Err(outcome(std::fs::read(amount))),
        "connect" => return Err(outcome(std::net::TcpStream::connect(amount))),
        "variables" => {
            let found = std::env::vars().count() + std::env::args().count();
            return Err(Failure::reject(found));
        }
        _ => return Err(Failure::reject(format!("no such order: {what}"))),
    }
    Ok(())
}

fn outcome<T>(result: std::io::Result<T>) -> Failure {
    match result {
        Ok(_) => Failure::reject("it worked"),
        Err(error) => Failure::reject(format!("refused: {error}")),
    }
}

/// Needs no linear memory, so that the machine's stack ends first.
#[inline(never)]
fn deep(n: u64) -> u64 {
    if n == u64::MAX { n } else { deep(n + 1).wrapping_mul(31) ^ n }
}

/// Each frame has an array in linear memory.
#[inline(never)]
fn deep_in_memory(n: u64) -> u64 {
    let frame = std::hint::black_box([n; 32]);
    if n == u64::MAX { n } else { deep_in_memory(frame[1] + 1) + frame[31] }
}
