//! How busy the machine is.

use std::time::Duration;

/// Time in which some process could have run and had no processor, since the machine's start (the kernel's PSI). Zero
/// where the kernel does not tell: then there is no allowance for a busy machine.
pub fn waited_for_a_processor() -> Duration {
    let text = std::fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let some = text.lines().find_map(|line| line.strip_prefix("some "));
    let total = some.and_then(|line| line.split("total=").nth(1)?.trim().parse().ok());
    Duration::from_micros(total.unwrap_or_default())
}
