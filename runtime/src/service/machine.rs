//! What the machine is called, for a host that the settings give no name.

/// Its name as the kernel knows it, or a word for none.
pub(super) fn name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "host".into() } else { name.chars().take(64).collect() }
}
