// SPDX-License-Identifier: Apache-2.0

//! sleeps SHAPE: a panic that passes a destructor, or a closure that the library calls; below, a
//! thread that sleeps in pause().

use std::hint::black_box;

extern "C" {
    fn pause() -> i32;
}

#[inline(never)]
fn leaf() {
    black_box(unsafe { pause() });
}

struct Sleeper;

impl Drop for Sleeper {
    #[inline(never)]
    fn drop(&mut self) {
        leaf();
    }
}

#[inline(never)]
fn passed(n: usize) {
    let _sleeper = Sleeper;
    if black_box(n) > 0 {
        std::panic::resume_unwind(Box::new(n));
    }
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("panic") => drop(std::panic::catch_unwind(|| passed(1))),
        Some("closure") => {
            let mut values = vec![3, 1, 2];
            values.sort_by(|a: &i32, b| {
                leaf();
                a.cmp(b)
            });
            black_box(values);
        }
        _ => {}
    }
}
