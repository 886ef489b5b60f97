//! The disk: the handle that tests hold, and the one door through which every change passes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::error::DiskError;
use crate::fault::{Fault, Faults, SyncHonesty, Verdict};
use crate::file::DiskFile;
use crate::handle::Locks;
use crate::loss::{Loss, after_power_cut};
use crate::random::Random;
use crate::settings::{Recording, Settings};
use crate::state::{Action, DirectorySync, FileId, State};
use crate::step::{Outcome, Step, StepKind};
use crate::vfs::Mount;

/// A disk in memory. Clones are handles on the same disk, and any thread may use any of them.
#[derive(Debug, Clone)]
pub struct Disk {
    pub(crate) shared: Arc<Shared>,
}

/// What the handles on one disk have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    settings: Settings,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) state: State,
    pub(crate) locks: Locks,
    faults: Faults,
    trace: Vec<Step>,
    recording: Option<RecordedRun>,
}

/// Everything needed to build the disk as it was after any step.
#[derive(Debug)]
struct RecordedRun {
    start: State,
    entries: Vec<Recorded>,
    /// Where the last rebuilding stopped: walking through the steps in order costs one step each.
    replay: Option<Replay>,
}

#[derive(Debug)]
struct Recorded {
    step: u64,
    action: Action,
}

#[derive(Debug)]
struct Replay {
    step: u64,
    entries_applied: usize,
    state: State,
}

impl Disk {
    /// An empty disk of the harshest kind ([`Settings::new`]). `seed` decides all random losses.
    pub fn new(seed: u64) -> Disk {
        Disk::with_settings(Settings::new(seed))
    }

    /// An empty disk of the given kind.
    pub fn with_settings(settings: Settings) -> Disk {
        Disk::at_rest(settings, State::default())
    }

    fn at_rest(settings: Settings, state: State) -> Disk {
        let recording = match settings.recording {
            Recording::Kept => Some(RecordedRun { start: state.clone(), entries: Vec::new(), replay: None }),
            Recording::Off => None,
        };
        let locks = Locks::default();
        let inner = Inner { state, locks, faults: Faults::none(), trace: Vec::new(), recording };
        Disk { shared: Arc::new(Shared { settings, inner: Mutex::new(inner) }) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock()
    }

    /// What kind of disk this is.
    pub fn settings(&self) -> Settings {
        self.shared.settings
    }

    /// Gives SQLite this disk as a file layer with a name of its own, for as long as the [`Mount`] lives.
    ///
    /// # Errors
    /// [`DiskError::NameRefused`] if SQLite does not start.
    pub fn mount(&self) -> Result<Mount, DiskError> {
        Mount::with_fresh_name(self)
    }

    /// Gives SQLite this disk as the file layer `vfs_name`, for as long as the [`Mount`] lives.
    ///
    /// # Errors
    /// [`DiskError::NameTaken`] or [`DiskError::NameRefused`].
    pub fn register(&self, vfs_name: &str) -> Result<Mount, DiskError> {
        Mount::with_name(self, vfs_name)
    }

    /// A plain file for code that is not SQLite. It is created by the first write.
    pub fn file(&self, path: impl AsRef<Path>) -> DiskFile {
        DiskFile::new(self.clone(), name_of(path.as_ref()))
    }
}

/// What happened so far.
impl Disk {
    /// How many steps there were.
    pub fn steps(&self) -> u64 {
        self.lock().steps()
    }

    /// Every step so far, in order.
    pub fn trace(&self) -> Vec<Step> {
        self.lock().trace.clone()
    }

    /// The numbers of the steps that were syncs.
    pub fn boundaries(&self) -> Vec<u64> {
        let inner = self.lock();
        inner.trace.iter().filter(|step| step.kind == StepKind::Sync).map(|step| step.number).collect()
    }

    /// How many steps of each kind there were, for a test to say what it walked through.
    pub fn step_counts(&self) -> BTreeMap<StepKind, u64> {
        let mut counts = BTreeMap::new();
        for step in &self.lock().trace {
            *counts.entry(step.kind).or_insert(0) += 1;
        }
        counts
    }

    /// The names in view, sorted.
    pub fn files(&self) -> Vec<String> {
        self.lock().state.names.keys().map(|path| path.to_string()).collect()
    }

    /// The content in view, whether synced or not.
    ///
    /// # Errors
    /// [`DiskError::NotFound`].
    pub fn read_file(&self, path: impl AsRef<Path>) -> Result<Vec<u8>, DiskError> {
        let path = name_of(path.as_ref());
        match self.lock().state.content(&path) {
            Some(content) => Ok(Vec::clone(&content)),
            None => Err(DiskError::NotFound { path: path.to_string() }),
        }
    }
}

/// Power cuts.
impl Disk {
    /// The disk as the machine would find it if the power went now. This one goes on as if nothing had happened.
    /// The same step and the same seed always lose the same.
    pub fn power_cut(&self, loss: Loss) -> Disk {
        let inner = self.lock();
        let mut random = Random::for_step(self.settings().seed, inner.steps());
        let state = after_power_cut(&inner.state, loss, self.settings(), &mut random);
        Disk::at_rest(self.settings(), state)
    }

    /// The disk as the machine would have found it if the power had gone right after `step` (0: before the first).
    /// Cheapest when asked for ascending steps.
    ///
    /// # Errors
    /// [`DiskError::NotRecorded`] without [`Recording::Kept`]; [`DiskError::StepAhead`] if `step` is yet to come.
    pub fn image_at(&self, step: u64, loss: Loss, seed: u64) -> Result<Disk, DiskError> {
        let mut inner = self.lock();
        let steps = inner.steps();
        if step > steps {
            return Err(DiskError::StepAhead { step, steps });
        }
        let past = inner.recording.as_mut().ok_or(DiskError::NotRecorded)?.state_after(step);
        let settings = Settings { seed, ..self.settings() };
        let state = after_power_cut(past, loss, settings, &mut Random::for_step(seed, step));
        Ok(Disk::at_rest(settings, state))
    }

    /// Arms a power cut: `step` is the last one that is carried out. From then on every operation, reads included,
    /// fails; [`Disk::power_cut`] then gives the image.
    pub fn cut_at_step(&self, step: u64) {
        self.lock().faults.cut_at = Some(step);
    }

    /// Whether an armed power cut has happened.
    pub fn is_off(&self) -> bool {
        self.lock().require_power().is_err()
    }
}

/// Faults while the machine runs.
impl Disk {
    /// The next sync of any file reports an I/O error. What it should have written stays visible, may or may not
    /// survive a power cut, and is *not* written by a later sync that succeeds: retrying does not help, as on Linux.
    pub fn fail_next_sync(&self) {
        self.lock().faults.arm_next_sync();
    }

    /// Step `step` reports `fault` and changes nothing. (If it is a sync, as in [`Disk::fail_next_sync`].)
    pub fn fail_step(&self, step: u64, fault: Fault) {
        self.lock().faults.arm_step(step, fault);
    }

    /// Writes that would bring all files together above this size fail with a full disk; `None` lifts the limit.
    pub fn set_capacity_bytes(&self, capacity_bytes: Option<u64>) {
        self.lock().faults.capacity_bytes = capacity_bytes;
    }

    /// From now on syncs tell the truth, or report success and do nothing.
    pub fn set_sync_honesty(&self, honesty: SyncHonesty) {
        self.lock().faults.sync_honesty = honesty;
    }
}

/// Damage at rest: not steps, and durable at once.
impl Disk {
    /// Inverts one bit (0 to 7, taken modulo 8) of one byte.
    ///
    /// # Errors
    /// [`DiskError::NotFound`], [`DiskError::OutOfRange`].
    pub fn flip_bit(&self, path: impl AsRef<Path>, offset: u64, bit: u8) -> Result<(), DiskError> {
        self.damage(path.as_ref(), offset, |file, offset| Action::FlipBit { file, offset, bit })
    }

    /// Cuts a file off so that `length_bytes` remain, which must be fewer than it has.
    ///
    /// # Errors
    /// [`DiskError::NotFound`], [`DiskError::OutOfRange`].
    pub fn truncate(&self, path: impl AsRef<Path>, length_bytes: u64) -> Result<(), DiskError> {
        self.damage(path.as_ref(), length_bytes, |file, length| Action::CutOff { file, length })
    }

    fn damage(
        &self,
        path: &Path,
        offset: u64,
        action: impl Fn(FileId, usize) -> Action,
    ) -> Result<(), DiskError> {
        let path = name_of(path);
        let mut inner = self.lock();
        let file = inner.find(&path)?;
        let length = inner.state.content(&path).map_or(0, |content| content.len());
        match usize::try_from(offset) {
            Ok(index) if index < length => {
                let step = inner.steps();
                inner.record(step, action(file, index));
                Ok(())
            }
            _ => Err(DiskError::OutOfRange { path: path.to_string(), offset, length_bytes: length as u64 }),
        }
    }
}

impl Inner {
    pub(crate) fn steps(&self) -> u64 {
        self.trace.len() as u64
    }

    pub(crate) fn find(&self, path: &str) -> Result<FileId, DiskError> {
        let found = self.state.names.get(path).copied();
        found.ok_or_else(|| DiskError::NotFound { path: path.to_owned() })
    }

    pub(crate) fn require_power(&self) -> Result<(), DiskError> {
        let step = self.steps();
        if self.faults.has_power_at(step) { Ok(()) } else { Err(DiskError::PowerOff { step }) }
    }

    /// Creates a file. A step.
    pub(crate) fn create(&mut self, path: &Arc<str>) -> Result<FileId, DiskError> {
        let file = self.state.next_file_id();
        self.perform(path, Action::Create { path: Arc::clone(path), file })?;
        Ok(file)
    }

    /// Removes a name. A step, if there is such a file.
    pub(crate) fn delete(&mut self, path: &Arc<str>, directory: DirectorySync) -> Result<(), DiskError> {
        self.require_power()?;
        let file = self.find(path)?;
        self.perform(path, Action::Delete { path: Arc::clone(path), file, directory })
    }

    /// Carries out one step, or fails it as armed. `path` is for the trace.
    pub(crate) fn perform(&mut self, path: &str, action: Action) -> Result<(), DiskError> {
        self.require_power()?;
        let step = self.steps() + 1;
        let mut entry = Step {
            number: step,
            kind: StepKind::Write,
            path: path.to_owned(),
            offset: 0,
            length_bytes: 0,
            outcome: Outcome::Done,
        };
        describe(&action, &mut entry);
        let verdict = match self.faults.verdict(step, entry.kind) {
            Verdict::Proceed if self.would_overflow(&action) => Verdict::Fail(Fault::Full),
            verdict => verdict,
        };
        entry.outcome = match verdict {
            Verdict::Proceed => Outcome::Done,
            Verdict::Lie => Outcome::Lied,
            Verdict::Fail(_) => Outcome::Failed,
        };
        self.trace.push(entry);
        match (verdict, action) {
            (Verdict::Proceed, action) => self.record(step, action),
            (Verdict::Fail(_), Action::Sync { file, .. }) => self.record(step, Action::FailedSync { file }),
            (Verdict::Fail(_) | Verdict::Lie, _) => {}
        }
        match verdict {
            Verdict::Proceed | Verdict::Lie => Ok(()),
            Verdict::Fail(Fault::InputOutput) => Err(DiskError::InputOutput { step }),
            Verdict::Fail(Fault::Full) => Err(DiskError::Full { step }),
        }
    }

    fn would_overflow(&self, action: &Action) -> bool {
        let (Some(capacity_bytes), Action::Write { file, offset, bytes }) =
            (self.faults.capacity_bytes, action)
        else {
            return false;
        };
        let length = self.state.files.get(file).map_or(0, |file| file.current.len());
        let growth = offset.saturating_add(bytes.len()).saturating_sub(length);
        growth > 0 && self.state.used_bytes().saturating_add(growth) as u64 > capacity_bytes
    }

    fn record(&mut self, step: u64, action: Action) {
        self.state.apply(step, &action);
        if let Some(recording) = &mut self.recording {
            recording.entries.push(Recorded { step, action });
        }
    }
}

impl RecordedRun {
    /// The state right after `step`, built from where the last call stopped if that was not later.
    fn state_after(&mut self, step: u64) -> &State {
        let start = || Replay { step: 0, entries_applied: 0, state: self.start.clone() };
        let mut replay = self.replay.take().filter(|replay| replay.step <= step).unwrap_or_else(start);
        while let Some(entry) = self.entries.get(replay.entries_applied).filter(|entry| entry.step <= step) {
            replay.state.apply(entry.step, &entry.action);
            replay.entries_applied += 1;
        }
        replay.step = step;
        &self.replay.insert(replay).state
    }
}

fn describe(action: &Action, step: &mut Step) {
    step.kind = match action {
        Action::Create { .. } => StepKind::Create,
        Action::Write { offset, bytes, .. } => {
            step.offset = *offset as u64;
            step.length_bytes = bytes.len() as u64;
            StepKind::Write
        }
        Action::Truncate { length, .. } | Action::CutOff { length, .. } => {
            step.offset = *length as u64;
            StepKind::Truncate
        }
        Action::FlipBit { .. } => StepKind::Write,
        Action::Sync { .. } | Action::FailedSync { .. } => StepKind::Sync,
        Action::Delete { .. } => StepKind::Delete,
    };
}

fn name_of(path: &Path) -> Arc<str> {
    Arc::from(path.to_string_lossy())
}
