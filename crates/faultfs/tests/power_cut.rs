//! Power cuts at every step of a run of 200 commits.
#![allow(clippy::indexing_slicing, clippy::print_stdout, reason = "helpers of tests may panic and print")]

mod support;

use support::{Run, Verdict};
use yoink_faultfs::{Disk, Loss, Outcome, Overwrite, SectorSize, Settings, StepKind, SyncHonesty};

const COMMITS: usize = 200;
const SEED: u64 = 20_260_105;
/// Luck differs by seed, so the modes that depend on it get several.
const SEEDS: [u64; 3] = [SEED, SEED + 10, SEED + 20];

/// Runs once and judges every step under each loss and seed.
#[track_caller]
fn assert_nothing_acknowledged_is_lost(settings: Settings, losses: &[Loss], seeds: &[u64]) {
    let run = Run::of(settings, "FULL", COMMITS);
    let counts = run.disk.step_counts();
    assert!(counts[&StepKind::Sync] > COMMITS as u64, "every commit syncs: {counts:?}");
    let trace = run.disk.trace();
    let checkpoints =
        trace.iter().filter(|step| step.kind == StepKind::Sync && step.path == support::LOG).count();
    assert!(checkpoints >= 5, "the run must go through checkpoints, and has {checkpoints}");
    println!("{} steps: {counts:?}, {checkpoints} syncs of the main file", run.disk.steps());
    for loss in losses {
        for seed in seeds {
            let bad = run.judge_every_step(*loss, *seed);
            let count = bad.len();
            assert!(
                bad.is_empty(),
                "{loss:?}, seed {seed}, {settings:?}: {count} bad steps, first {:?}",
                bad[0]
            );
        }
    }
}

#[test]
fn every_acknowledged_commit_survives_when_all_unsynced_writes_are_lost_at_any_step() {
    assert_nothing_acknowledged_is_lost(Settings::new(SEED), &[Loss::DropAll], &[SEED]);
}

#[test]
fn every_acknowledged_commit_survives_when_unsynced_writes_are_lost_at_random_at_any_step() {
    assert_nothing_acknowledged_is_lost(Settings::new(SEED), &[Loss::DropRandomSubset], &SEEDS);
}

#[test]
fn every_acknowledged_commit_survives_when_the_last_sector_is_torn_at_any_step() {
    assert_nothing_acknowledged_is_lost(Settings::new(SEED), &[Loss::TearLastSector], &SEEDS);
}

#[test]
fn every_acknowledged_commit_survives_when_the_process_is_killed_at_any_step() {
    assert_nothing_acknowledged_is_lost(Settings::new(SEED), &[Loss::KeepAll], &[SEED]);
}

#[test]
fn every_acknowledged_commit_survives_on_a_disk_whose_overwrites_are_power_safe() {
    let settings = Settings { overwrite: Overwrite::PowerSafe, ..Settings::new(SEED + 1) };
    assert_nothing_acknowledged_is_lost(settings, &Loss::ALL, &[SEED + 1]);
}

#[test]
fn every_acknowledged_commit_survives_on_a_disk_with_large_sectors() {
    let settings = Settings { sector: SectorSize::Bytes4096, ..Settings::new(SEED + 2) };
    assert_nothing_acknowledged_is_lost(
        settings,
        &[Loss::DropRandomSubset, Loss::TearLastSector],
        &[SEED + 2],
    );
}

/// The number of steps at which an acknowledged commit is missing, and at which the file is damaged.
fn count_bad(run: &Run, loss: Loss) -> (usize, usize) {
    let bad = run.judge_every_step(loss, SEED);
    let lost = bad.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Lost { .. })).count();
    let damaged = bad.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Damaged(_))).count();
    (lost, damaged)
}

#[test]
fn the_judge_sees_losses_when_sqlite_does_not_sync() {
    let run = Run::of(Settings::new(SEED), "OFF", 60);
    let (lost, _) = count_bad(&run, Loss::DropAll);
    assert!(lost >= 1, "60 unsynced commits, and none was lost in a power cut");
}

#[test]
fn the_judge_sees_losses_when_sqlite_syncs_only_at_checkpoints() {
    let run = Run::of(Settings::new(SEED), "NORMAL", 60);
    for loss in [Loss::DropAll, Loss::DropRandomSubset, Loss::TearLastSector] {
        let (lost, damaged) = count_bad(&run, loss);
        assert!(lost >= 1, "{loss:?}: commits are not synced one by one, and none was lost");
        assert_eq!(damaged, 0, "{loss:?}: NORMAL promises an undamaged file");
    }
}

#[test]
fn the_judge_sees_losses_when_the_disk_lies_about_syncs() {
    let disk = Disk::new(SEED);
    disk.set_sync_honesty(SyncHonesty::Lies);
    let run = Run::on(disk, "FULL", 60);
    assert!(run.disk.trace().iter().any(|step| step.outcome == Outcome::Lied));
    let (lost, _) = count_bad(&run, Loss::DropAll);
    assert!(lost >= 1, "the disk lied 60 times, and none was lost");
    let (_, damaged) = count_bad(&run, Loss::DropRandomSubset);
    assert!(damaged >= 1, "checkpoints in any order, and the file was never damaged");
}

#[test]
fn the_judge_sees_nothing_wrong_when_a_lying_disk_keeps_its_power() {
    let disk = Disk::new(SEED);
    disk.set_sync_honesty(SyncHonesty::Lies);
    let run = Run::on(disk, "FULL", 60);
    assert_eq!(count_bad(&run, Loss::KeepAll), (0, 0));
}

#[test]
fn an_armed_power_cut_stops_the_machine_and_leaves_the_same_image_as_the_recording() {
    let reference = Run::of(Settings::new(SEED), "FULL", 20);
    let step = reference.acknowledged_at[9] + 1;

    let disk = Disk::new(SEED);
    disk.cut_at_step(step);
    let log = support::open_for_writing(&disk, "FULL").unwrap();
    let acknowledged = (1..=20).take_while(|seq| support::append(&log, *seq).is_ok()).count();
    assert_eq!(acknowledged, 10);
    assert!(disk.is_off());
    assert_eq!(disk.steps(), step);
    assert!(support::append(&log, 11).is_err(), "a machine without power does not come back");
    assert!(disk.file(support::LOG).read_all().is_err(), "reads fail too");

    for loss in Loss::ALL {
        let found = support::recover(&disk.power_cut(loss)).unwrap();
        assert!((10..=11).contains(&found), "{loss:?}: {found}");
        let now = disk.power_cut(loss);
        let rebuilt = disk.image_at(step, loss, SEED).unwrap();
        assert_eq!(now.files(), rebuilt.files());
        for file in now.files() {
            assert_eq!(now.read_file(&file).unwrap(), rebuilt.read_file(&file).unwrap(), "{loss:?} {file}");
        }
    }
}

#[test]
fn an_image_can_lose_its_power_again_while_it_recovers() {
    let run = Run::of(Settings::new(SEED), "FULL", 45);
    let first = run.disk.steps();
    let image = run.disk.image_at(first, Loss::TearLastSector, SEED).unwrap();
    assert_eq!(support::recover(&image).unwrap(), 45);
    // `recover` appended one event more and closed the log, with a checkpoint.
    for step in 0..=image.steps() {
        for loss in Loss::ALL {
            let again = image.image_at(step, loss, SEED + step).unwrap();
            let found = support::recover(&again).unwrap();
            assert!((45..=46).contains(&found), "second cut after step {step}, {loss:?}: {found}");
        }
    }
}
