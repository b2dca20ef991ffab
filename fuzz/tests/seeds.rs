//! Every target, without the fuzzer: the seeds as they are and in many damaged forms, and pseudo-random bytes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "support of tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use opamp_fuzz::TARGETS;

fn directory(target: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "seeds", target].iter().collect()
}

/// `UPDATE_SEEDS=1 cargo test -p opamp-fuzz` writes them.
#[test]
fn the_committed_seeds_are_those_of_the_targets() {
    let update = std::env::var_os("UPDATE_SEEDS").is_some();
    for target in TARGETS {
        let directory = directory(target.name);
        if update {
            let _ = fs::remove_dir_all(&directory);
            fs::create_dir_all(&directory).unwrap();
        }
        let mut names = BTreeSet::new();
        for (name, bytes) in (target.seeds)() {
            assert!(names.insert(name.to_owned()), "{}/{name} twice", target.name);
            if update {
                fs::write(directory.join(name), bytes).unwrap();
            } else {
                assert_eq!(fs::read(directory.join(name)).ok(), Some(bytes), "{}/{name}", target.name);
            }
        }
        let found: BTreeSet<String> = fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(found, names, "seeds of {}", target.name);
    }
}

#[test]
fn every_target_has_a_program_of_its_name() {
    let manifest = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    let programs: Vec<&str> = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\""))
        .collect();
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(programs, names);
    for name in names {
        let path = format!("{}/fuzz_targets/{name}.rs", env!("CARGO_MANIFEST_DIR"));
        assert!(fs::read_to_string(path).unwrap().contains(&format!("run(\"{name}\", input)")));
    }
}

#[test]
fn every_target_holds_for_its_seeds_and_their_damaged_forms() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for target in TARGETS {
        for (_, seed) in (target.seeds)() {
            (target.run)(&seed);
            for _ in 0..60 {
                let mut damaged = seed.clone();
                for _ in 0..=random.below(3) {
                    let at = random.below(damaged.len() + 1);
                    match random.below(4) {
                        0 => damaged.truncate(at),
                        1 => damaged.insert(at, random.next() as u8),
                        _ if at < damaged.len() => damaged[at] = random.next() as u8,
                        _ => {}
                    }
                }
                (target.run)(&damaged);
            }
        }
    }
}

#[test]
fn every_target_holds_for_random_bytes() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for target in TARGETS {
        for _ in 0..100 {
            let bytes: Vec<u8> = (0..random.below(200)).map(|_| random.next() as u8).collect();
            (target.run)(&bytes);
        }
    }
}

/// xorshift: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    fn below(&mut self, bound: usize) -> usize {
        self.next() as usize % bound
    }
}
