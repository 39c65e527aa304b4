//! How much memory this process could still take: one probe per system, behind one trait.
//!
//! Each system counts in its own way, and none of the answers is exact: memory that other programs
//! give up is not free yet, and memory that is free now may be taken a moment later. So a plan keeps
//! a reserve, and a caller that knows better says so ([`SystemMemory::at_most`], or a probe of its own).
//!
//! | system | available | peak |
//! |---|---|---|
//! | Linux | `MemAvailable`, less where a control group or a limit on the address space says so | `VmHWM` |
//! | Android | the same, at most what the app was told ([`SystemMemory::at_most`]) | `VmHWM` |
//! | macOS | free and inactive pages | `getrusage` |
//! | iOS | `os_proc_available_memory`: what is left before the app is killed | `getrusage` |
//! | Windows | free physical memory, less where the page file leaves less | peak working set |
//!
//! The calls are declared by hand, four structures and seven functions, instead of crates that
//! bring bindings to whole systems.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod cgroup;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;
#[cfg(any(target_os = "linux", target_os = "android"))]
use linux as system;

#[cfg(target_vendor = "apple")]
mod apple;
#[cfg(target_vendor = "apple")]
use apple as system;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows as system;

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple", windows)))]
mod unknown;
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple", windows)))]
use unknown as system;

/// The system does not say how much memory is free.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{system} does not say how much memory is free ({detail}); state a memory budget")]
pub struct MemoryUnknown {
    /// Name of the operating system.
    pub system: &'static str,
    /// What was asked, and to what effect.
    pub detail: &'static str,
}

/// What is known of the machine's memory; a parameter like the storage, so that a plan can be repeated.
pub trait MemoryProbe: Send + Sync {
    /// Bytes that this process could still take.
    ///
    /// # Errors
    /// The system does not say.
    fn available_bytes(&self) -> Result<u64, MemoryUnknown>;

    /// Highest resident memory of this process so far, bytes, where the system says.
    fn peak_resident_bytes(&self) -> Option<u64>;

    /// Lets [`MemoryProbe::peak_resident_bytes`] begin anew with what is resident now, where the system can.
    fn reset_peak_resident(&self);
}

/// The probe of the system that the program runs on.
#[derive(Copy, Clone, Debug, Default)]
pub struct SystemMemory {
    most: Option<u64>,
}

impl SystemMemory {
    /// The probe of a program that was told by other means that it may take `bytes` more at most: an Android
    /// app by `ActivityManager.MemoryInfo`, a job by its scheduler.
    pub fn at_most(bytes: u64) -> Self {
        SystemMemory { most: Some(bytes) }
    }
}

impl MemoryProbe for SystemMemory {
    fn available_bytes(&self) -> Result<u64, MemoryUnknown> {
        match (system::available_bytes(), self.most) {
            (Ok(available), Some(most)) => Ok(available.min(most)),
            (Err(_), Some(most)) => Ok(most),
            (answer, None) => answer,
        }
    }

    fn peak_resident_bytes(&self) -> Option<u64> {
        system::peak_resident_bytes()
    }

    fn reset_peak_resident(&self) {
        system::reset_peak_resident();
    }
}

/// A machine that always gives the same answers, for tests and for plans of other machines.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct FixedMemory(pub Result<u64, MemoryUnknown>);

impl MemoryProbe for FixedMemory {
    fn available_bytes(&self) -> Result<u64, MemoryUnknown> {
        self.0
    }

    fn peak_resident_bytes(&self) -> Option<u64> {
        None
    }

    fn reset_peak_resident(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_system_answers_and_a_statement_bounds_it() {
        let available = SystemMemory::default().available_bytes().unwrap();
        assert!(available > 1 << 20, "{available}");
        assert_eq!(SystemMemory::at_most(1 << 20).available_bytes(), Ok(1 << 20));
        let peak = SystemMemory::default().peak_resident_bytes().unwrap();
        assert!(peak > 1 << 16, "{peak}");
    }
}
