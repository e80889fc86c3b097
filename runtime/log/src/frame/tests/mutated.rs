//! A fuzzer of decoders: valid bytes, changed as storage, networks and strangers change them. What it does follows from its
//! seed, which it prints; `SLUICEBOX_SEED` sets it, `SLUICEBOX_FUZZ` how many inputs are tried.

/// Inputs tried for each decoder.
const INPUTS: u64 = 30_000;

/// Bytes and numbers at which decoders go wrong: bounds of lengths, of numbers, of kinds.
const TELLING: [&[u8]; 9] = [
    &[0],
    &[1],
    &[0x7f],
    &[0x80, 0x01],
    &[0xff],
    &[0xff, 0xff, 0x03],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0xc3, 0x28],
];

/// Calls `decode` with many changed copies of these inputs. It must not panic.
pub(crate) fn survive(corpus: &[Vec<u8>], mut decode: impl FnMut(&[u8])) {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let seed = number("SLUICEBOX_SEED", 20_260_713);
    let inputs = number("SLUICEBOX_FUZZ", INPUTS);
    println!("{inputs} inputs, SLUICEBOX_SEED={seed}");
    let mut random = Random(seed);
    for _ in 0..inputs {
        let mut bytes = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(4) {
            change(&mut random, corpus, &mut bytes);
        }
        decode(&bytes);
    }
}

fn change(random: &mut Random, corpus: &[Vec<u8>], bytes: &mut Vec<u8>) {
    let at = random.below(bytes.len() + 1);
    let end = at + random.below((bytes.len() - at).min(40) + 1);
    match random.below(7) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..end)),
        2 => drop(bytes.splice(at..end, TELLING[random.below(TELLING.len())].iter().copied())),
        3 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
        4 => {
            // The head of one and the tail of another.
            let other = &corpus[random.below(corpus.len())];
            bytes.truncate(at);
            bytes.extend_from_slice(&other[random.below(other.len() + 1)..]);
        }
        5 => bytes[at..end].iter_mut().for_each(|byte| *byte = random.byte()),
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("less than the bound")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}
