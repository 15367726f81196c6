//! The binary: picks the allocator and calls into the library.

use std::process::ExitCode;

/// Many small short-lived allocations on several threads: mimalloc returns memory to the system
/// and fragments less than the allocator of the C library.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    causerie::cli::main()
}
