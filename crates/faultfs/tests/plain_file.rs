//! Files beside SQLite: the same numbering, the same losses.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may panic too")]

use std::io::ErrorKind;

use yoink_faultfs::{Disk, DiskFile, Fault, Loss, StepKind, SyncHonesty};

const SLOT_BYTES: usize = 512;
const SEED: u64 = 77;

/// A slot of one sector: its number, and a body from which damage shows.
fn slot(number: u64) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(SLOT_BYTES, number as u8);
    bytes
}

fn number_in(bytes: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    (number > 0 && bytes == slot(number)).then_some(number)
}

fn newest(file: &DiskFile) -> Option<u64> {
    file.read_all().ok()?.chunks(SLOT_BYTES).filter_map(number_in).max()
}

/// Writes numbers 1 to 100 into `slots` slots in turn, each synced, and returns the step at which each was done.
fn write_numbers(disk: &Disk, slots: u64) -> Vec<u64> {
    let file = disk.file("/beacon");
    let mut done_at = Vec::new();
    for number in 1..=100 {
        file.write_at(number % slots * SLOT_BYTES as u64, &slot(number)).unwrap();
        file.sync().unwrap();
        done_at.push(disk.steps());
    }
    done_at
}

/// At how many steps and losses the newest number that was synced is gone.
fn count_lost(disk: &Disk, done_at: &[u64]) -> usize {
    let mut lost = 0;
    for step in 0..=disk.steps() {
        let synced = done_at.iter().filter(|done| **done <= step).count() as u64;
        for loss in Loss::ALL {
            let image = disk.image_at(step, loss, SEED + step).unwrap();
            let found = newest(&image.file("/beacon")).unwrap_or(0);
            assert!(found <= synced + 1, "number {found} was not yet written at step {step}");
            lost += usize::from(found < synced);
        }
    }
    lost
}

#[test]
fn two_slots_in_turn_never_lose_a_synced_number() {
    let disk = Disk::new(SEED);
    let done_at = write_numbers(&disk, 2);
    assert_eq!(count_lost(&disk, &done_at), 0);
}

#[test]
fn one_slot_written_over_and_over_loses_a_synced_number_somewhere() {
    let disk = Disk::new(SEED);
    let done_at = write_numbers(&disk, 1);
    assert!(count_lost(&disk, &done_at) > 0, "a torn overwrite must be visible");
}

#[test]
fn a_lying_disk_loses_synced_numbers() {
    let disk = Disk::new(SEED);
    disk.set_sync_honesty(SyncHonesty::Lies);
    let done_at = write_numbers(&disk, 2);
    assert!(count_lost(&disk, &done_at) > 0);
}

#[test]
fn steps_are_numbered_in_order_and_boundaries_are_the_syncs() {
    let disk = Disk::new(SEED);
    write_numbers(&disk, 2);
    let trace = disk.trace();
    assert!(trace.iter().zip(1..).all(|(step, number)| step.number == number));
    let kinds: Vec<_> = trace.iter().take(5).map(|step| step.kind).collect();
    let expected = [StepKind::Create, StepKind::Write, StepKind::Sync, StepKind::Write, StepKind::Sync];
    assert_eq!(kinds, expected);
    assert_eq!((trace[3].offset, trace[3].length_bytes), (0, 512));
    assert_eq!(disk.boundaries().len(), 100);
    assert_eq!(disk.boundaries()[..2], [3, 5]);
}

#[test]
fn the_same_seed_loses_the_same_and_another_seed_does_not() {
    let disk = Disk::new(SEED);
    let file = disk.file("/f");
    file.write_at(0, &[1; 512]).unwrap();
    file.sync().unwrap();
    for sector in 1..64 {
        file.write_at(sector * 512, &[2; 512]).unwrap();
    }
    let content = |seed| {
        let image = disk.image_at(disk.steps(), Loss::DropRandomSubset, seed).unwrap();
        image.read_file("/f").unwrap()
    };
    assert_eq!(content(1), content(1));
    assert_ne!(content(1), content(2));
    let survivors = content(1).chunks(512).filter(|sector| *sector == [2; 512]).count();
    assert!((10..54).contains(&survivors), "about half of 63 sectors should survive, and {survivors} did");
}

#[test]
fn a_new_name_is_durable_only_after_a_sync() {
    let disk = Disk::new(SEED);
    let file = disk.file("/f");
    file.write_at(0, b"abc").unwrap();
    assert_eq!(disk.power_cut(Loss::DropAll).files(), [""; 0]);
    assert_eq!(disk.power_cut(Loss::KeepAll).read_file("/f").unwrap(), b"abc");
    file.sync().unwrap();
    file.set_length(1).unwrap();
    assert_eq!(file.read_all().unwrap(), b"a");
    assert_eq!(disk.power_cut(Loss::DropAll).read_file("/f").unwrap(), b"abc");
}

#[test]
fn what_a_failed_sync_left_behind_is_not_written_by_the_next_one() {
    let disk = Disk::new(SEED);
    let file = disk.file("/f");
    file.write_at(0, b"old").unwrap();
    file.sync().unwrap();
    file.write_at(0, b"new").unwrap();
    disk.fail_next_sync();
    assert!(file.sync().is_err());
    file.sync().unwrap();
    assert_eq!(file.read_all().unwrap(), b"new");
    assert_eq!(disk.power_cut(Loss::DropAll).read_file("/f").unwrap(), b"old");
}

#[test]
fn errors_of_a_plain_file_have_the_kind_that_the_system_would_give() {
    let disk = Disk::new(SEED);
    let file = disk.file("/f");
    assert_eq!(file.read_all().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(file.sync().unwrap_err().kind(), ErrorKind::NotFound);
    file.write_at(0, b"abc").unwrap();
    disk.fail_step(3, Fault::Full);
    assert_eq!(file.write_at(0, b"d").unwrap_err().kind(), ErrorKind::StorageFull);
    disk.fail_step(4, Fault::InputOutput);
    assert_eq!(file.write_at(0, b"d").unwrap_err().to_string(), "injected I/O error at step 4");
    assert_eq!(file.read_all().unwrap(), b"abc");
    disk.cut_at_step(4);
    assert!(file.read_all().is_err());
    assert!(file.write_at(0, b"d").is_err());
    assert_eq!(disk.steps(), 4);
}
