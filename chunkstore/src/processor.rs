/// The processor lacks what this program was compiled for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this processor lacks {missing}, which imira needs for its checksums; every x86-64 processor since 2010 has it"
)]
pub struct ProcessorError {
    missing: String,
}

/// Checks that the processor has SSE4.2 and PCLMULQDQ, for which RocksDB's CRC is compiled (`.cargo/config.toml`).
/// Call it first, so that an old processor gives a message instead of SIGILL. Always passes on other architectures.
#[cfg(target_arch = "x86_64")]
pub fn check_processor() -> Result<(), ProcessorError> {
    // Not `is_x86_feature_detected!`: it is constantly true for features that the compiler was told to use.
    missing_features(std::arch::x86_64::__cpuid(1).ecx)
}

/// Nothing is needed beyond the architecture itself.
#[cfg(not(target_arch = "x86_64"))]
pub fn check_processor() -> Result<(), ProcessorError> {
    Ok(())
}

/// Bits of CPUID leaf 1, ECX (Intel SDM volume 2A, CPUID, table 3-10).
#[cfg(target_arch = "x86_64")]
fn missing_features(ecx: u32) -> Result<(), ProcessorError> {
    let features = [("PCLMULQDQ", 1), ("SSE4.2", 20)];
    let missing: Vec<_> = features.iter().filter(|(_, bit)| ecx >> bit & 1 == 0).map(|(name, _)| *name).collect();
    if missing.is_empty() { Ok(()) } else { Err(ProcessorError { missing: missing.join(" and ") }) }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn an_old_processor_is_told_what_it_lacks() {
        assert_eq!(missing_features(1 << 1 | 1 << 20), Ok(()));
        let message = |ecx| missing_features(ecx).unwrap_err().to_string();
        assert!(message(1 << 1).starts_with("this processor lacks SSE4.2, "));
        assert!(message(0).starts_with("this processor lacks PCLMULQDQ and SSE4.2, "));
    }

    #[test]
    fn this_processor_will_do() {
        assert_eq!(check_processor(), Ok(()));
    }
}
