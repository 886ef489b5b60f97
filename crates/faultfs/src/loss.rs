//! What the platter holds after a power cut: the durable content, and of the pending changes what luck lets through.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::random::Random;
use crate::settings::{Overwrite, Settings};
use crate::state::{Change, File, State, write_into};

/// How much of what was not synced survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    /// Nothing.
    DropAll,
    /// Each pending change independently survives, is lost, or (a write) survives in some of its sectors: the disk
    /// reorders as it likes.
    DropRandomSubset,
    /// The changes before a random one survive, in the order in which they were made, across all files. If that one is
    /// a write, it stops at a sector boundary or leaves a ruined sector.
    TearLastSector,
    /// Everything: the disk was lucky, or the process was killed and not the machine.
    KeepAll,
}

impl Loss {
    /// Every mode, for tests that walk through all of them.
    pub const ALL: [Loss; 4] = [Loss::DropAll, Loss::DropRandomSubset, Loss::TearLastSector, Loss::KeepAll];
}

/// What becomes of one pending change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lost,
    Whole,
    /// Each sector survives or not.
    Sectors,
    /// The first sectors survive, and perhaps a ruined one.
    Torn,
}

/// The disk as the next start of the machine finds it.
pub(crate) fn after_power_cut(state: &State, loss: Loss, settings: Settings, random: &mut Random) -> State {
    let fates = choose_fates(state, loss, random);
    let fate_of = |step: u64| fates.get(&step).copied().unwrap_or(Fate::Lost);

    let mut names = state.durable_names.clone();
    for pending in &state.pending_names {
        if fate_of(pending.step) != Fate::Lost {
            pending.apply_to(&mut names);
        }
    }
    let mut contents = Vec::new();
    for (path, file) in names {
        if let Some(file) = state.files.get(&file) {
            contents.push((path, surviving_content(file, fate_of, settings, random)));
        }
    }
    State::at_rest(contents)
}

fn choose_fates(state: &State, loss: Loss, random: &mut Random) -> BTreeMap<u64, Fate> {
    let mut steps: Vec<u64> = state.pending_names.iter().map(|pending| pending.step).collect();
    for file in state.files.values() {
        steps.extend(file.pending.iter().map(|pending| pending.step));
    }
    steps.sort_unstable();

    let last_survivor = random.below(steps.len() + 1);
    let mut fates = BTreeMap::new();
    for (position, step) in (1..).zip(steps) {
        let fate = match loss {
            Loss::DropAll => Fate::Lost,
            Loss::KeepAll => Fate::Whole,
            Loss::DropRandomSubset => match random.below(3) {
                0 => Fate::Lost,
                1 => Fate::Whole,
                _ => Fate::Sectors,
            },
            Loss::TearLastSector if position < last_survivor => Fate::Whole,
            Loss::TearLastSector if position == last_survivor => Fate::Torn,
            Loss::TearLastSector => Fate::Lost,
        };
        fates.insert(step, fate);
    }
    fates
}

fn surviving_content(
    file: &File,
    fate_of: impl Fn(u64) -> Fate,
    settings: Settings,
    random: &mut Random,
) -> Vec<u8> {
    let mut content = Vec::clone(&file.durable);
    for pending in &file.pending {
        match (fate_of(pending.step), &pending.change) {
            (Fate::Lost, _) => {}
            (Fate::Sectors, Change::Write { offset, bytes }) => {
                for (at, piece) in sectors(*offset, bytes, settings.sector.bytes()) {
                    if random.coin() {
                        write_into(&mut content, at, piece);
                    }
                }
            }
            (Fate::Torn, Change::Write { offset, bytes }) => {
                tear(&mut content, *offset, bytes, settings, random)
            }
            // A new length is one field of the file's record: it is there or it is not.
            (Fate::Whole | Fate::Sectors | Fate::Torn, change) => change.apply_to(&mut content),
        }
    }
    content
}

/// Writes the first sectors of `bytes`, then perhaps ruins the one in which the power went.
fn tear(content: &mut Vec<u8>, offset: usize, bytes: &[u8], settings: Settings, random: &mut Random) {
    let sector_bytes = settings.sector.bytes();
    let pieces: Vec<_> = sectors(offset, bytes, sector_bytes).collect();
    let kept = random.below(pieces.len());
    for (at, piece) in pieces.iter().take(kept) {
        write_into(content, *at, piece);
    }
    let ruins = random.coin();
    let Some((at, piece)) = pieces.get(kept).filter(|_| ruins) else {
        return;
    };

    let written_end = at.saturating_add(piece.len());
    let (start, end) = match settings.overwrite {
        Overwrite::PowerSafe => (at.saturating_add(random.below(piece.len())), written_end),
        Overwrite::Careless => {
            let sector_start = at - at % sector_bytes;
            (sector_start, (sector_start + sector_bytes).min(content.len()).max(written_end))
        }
    };
    write_into(content, *at, piece);
    let mut rubbish = vec![0; end - start];
    random.fill(&mut rubbish);
    write_into(content, start, &rubbish);
}

/// Splits a write where it crosses a sector of the file.
fn sectors(offset: usize, bytes: &[u8], sector_bytes: usize) -> impl Iterator<Item = (usize, &[u8])> {
    let (mut at, mut rest) = (offset, bytes);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, tail) = rest.split_at(rest.len().min(sector_bytes - at % sector_bytes));
        let start = at;
        (at, rest) = (at + piece.len(), tail);
        Some((start, piece))
    })
}

impl State {
    /// The contents in view, for a copy of the disk as it stands.
    pub(crate) fn content(&self, path: &str) -> Option<Arc<Vec<u8>>> {
        let file = self.names.get(path)?;
        self.files.get(file).map(|file| Arc::clone(&file.current))
    }
}
