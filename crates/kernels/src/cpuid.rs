//! What the processor says of itself.

/// What CPUID says in a leaf, in the first of its parts.
pub(crate) fn cpuid(leaf: u32) -> std::arch::x86_64::CpuidResult {
    // SAFETY: every x86-64 processor has CPUID. (Newer compilers know that and make the call safe.)
    #[allow(unused_unsafe)]
    unsafe {
        std::arch::x86_64::__cpuid_count(leaf, 0)
    }
}
