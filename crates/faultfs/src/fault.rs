//! Faults that a test arms: errors at chosen steps, syncs that lie, a power cut to come.

use std::collections::BTreeMap;

use crate::step::StepKind;

/// An error to inject at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The device failed (`EIO`).
    InputOutput,
    /// No space is left (`ENOSPC`).
    Full,
}

/// Whether a sync that reports success has synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncHonesty {
    /// It has.
    Honest,
    /// It has not: everything stays pending.
    Lies,
}

/// What the armed faults say about one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Proceed,
    Lie,
    Fail(Fault),
}

/// Everything that is armed on one disk.
#[derive(Debug)]
pub(crate) struct Faults {
    pub(crate) cut_at: Option<u64>,
    pub(crate) capacity_bytes: Option<u64>,
    pub(crate) sync_honesty: SyncHonesty,
    fail_next_sync: bool,
    steps: BTreeMap<u64, Fault>,
}

impl Faults {
    pub(crate) fn none() -> Self {
        Self {
            cut_at: None,
            capacity_bytes: None,
            sync_honesty: SyncHonesty::Honest,
            fail_next_sync: false,
            steps: BTreeMap::new(),
        }
    }

    pub(crate) fn arm_next_sync(&mut self) {
        self.fail_next_sync = true;
    }

    pub(crate) fn arm_step(&mut self, step: u64, fault: Fault) {
        self.steps.insert(step, fault);
    }

    /// Whether the machine still runs after `steps` steps.
    pub(crate) fn has_power_at(&self, steps: u64) -> bool {
        self.cut_at.is_none_or(|cut| steps < cut)
    }

    /// Uses up what is armed for this step. An armed failure wins over a lie.
    pub(crate) fn verdict(&mut self, step: u64, kind: StepKind) -> Verdict {
        if let Some(fault) = self.steps.remove(&step) {
            return Verdict::Fail(fault);
        }
        if kind != StepKind::Sync {
            return Verdict::Proceed;
        }
        if std::mem::take(&mut self.fail_next_sync) {
            return Verdict::Fail(Fault::InputOutput);
        }
        match self.sync_honesty {
            SyncHonesty::Honest => Verdict::Proceed,
            SyncHonesty::Lies => Verdict::Lie,
        }
    }
}
