//! When the disk says no: full, almost full, or a sync that fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod common;

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use common::{buy, id, product, restock, runtime};
use yoink_core::Rejection;
use yoink_engine::{CallError, Engine, EngineState, Options, Replayed};
use yoink_faultfs::{Disk, Loss};

const MIB: u64 = 1 << 20;

fn free_bytes(path: &Path) -> u64 {
    let stats = rustix::fs::statvfs(path).unwrap();
    stats.f_bavail * stats.f_frsize
}

async fn until(engine: &Engine, state: EngineState) {
    for _ in 0..2_000 {
        if engine.state() == state {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the engine is {:?}, not {state:?}", engine.state());
}

#[test]
fn selling_stops_when_the_disk_is_almost_full_and_goes_on_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(folder.path());
    options.free_bytes_min = free_bytes(folder.path()) - 512 * MIB;
    let engine = Engine::open(options).unwrap();
    runtime().block_on(async {
        engine.create_product(product("1", 10)).await.unwrap();
        let won = engine.purchase(buy("ann", "1", 1, Some("k"))).await.unwrap();
        let ballast = folder.path().join("ballast");
        let file = File::create(&ballast).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 1_024 * MIB).unwrap();
        until(&engine, EngineState::StorageFull).await;
        assert_eq!(engine.purchase(buy("bob", "1", 1, None)).await.unwrap_err(), CallError::StorageFull);
        assert_eq!(engine.create_product(product("2", 1)).await.unwrap_err(), CallError::StorageFull);
        assert_eq!(engine.storefront().product(&id("1")).unwrap().figures.sold, 1, "nothing happened");
        // A winner is still told so, a "no" is still a "no", and giving back goes on.
        let again = engine.purchase(buy("ann", "1", 1, Some("k"))).await.unwrap();
        assert_eq!((again.order, again.replayed), (won.order, Replayed::Yes));
        let too_many = engine.purchase(buy("bob", "1", 11, None)).await.unwrap_err();
        assert_eq!(too_many, CallError::Refused(Rejection::QuantityAboveMax { max_per_order: 10 }));
        engine.cancel(won.order, "no".into()).await.unwrap();
        engine.adjust_stock(restock("1", -5, "w")).await.unwrap();
        assert!(engine.figures().storage_full >= 2);
        drop(file);
        std::fs::remove_file(&ballast).unwrap();
        until(&engine, EngineState::Ready).await;
        engine.purchase(buy("bob", "1", 1, None)).await.unwrap();
        assert!(engine.reconcile().await.unwrap().ok);
    });
    engine.close_blocking(Duration::ZERO);
}

/// An engine whose log is on a disk that can fail.
fn on(disk: &Disk, folder: &Path, mount: &yoink_faultfs::Mount) -> Engine {
    let _ = disk;
    let mut options = Options::new(folder);
    options.log_vfs = Some(mount.name().to_owned());
    Engine::open(options).unwrap()
}

#[test]
fn after_a_sync_that_failed_nobody_is_told_failed_and_the_engine_stops() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), Disk::new(5));
    let mount = disk.mount().unwrap();
    let engine = on(&disk, folder.path(), &mount);
    runtime().block_on(async {
        engine.create_product(product("1", 100)).await.unwrap();
        let mut won = Vec::new();
        for buyer in 0..5 {
            won.push(engine.purchase(buy(&format!("b{buyer}"), "1", 1, Some("k"))).await.unwrap());
        }
        disk.fail_next_sync();
        let unknown = engine.purchase(buy("unlucky", "1", 1, Some("k"))).await.unwrap_err();
        assert_eq!(unknown, CallError::OutcomeUnknown);
        until(&engine, EngineState::Failed).await;
        assert_eq!(engine.purchase(buy("later", "1", 1, None)).await.unwrap_err(), CallError::Closing);
        engine.close_blocking(Duration::ZERO);
        drop(engine);
        drop(mount);

        // The power goes too. Every promise is there; the unlucky one may be, and is one order with its key.
        for loss in Loss::ALL {
            let after = disk.power_cut(loss);
            let (folder, mount) = (tempfile::tempdir().unwrap(), after.mount().unwrap());
            let engine = on(&after, folder.path(), &mount);
            for (buyer, before) in won.iter().enumerate() {
                let again = engine.purchase(buy(&format!("b{buyer}"), "1", 1, Some("k"))).await.unwrap();
                assert_eq!((again.order, again.replayed), (before.order, Replayed::Yes), "{loss:?}");
            }
            let first = engine.purchase(buy("unlucky", "1", 1, Some("k"))).await.unwrap();
            let second = engine.purchase(buy("unlucky", "1", 1, Some("k"))).await.unwrap();
            assert_eq!((first.order, second.replayed), (second.order, Replayed::Yes), "{loss:?}");
            assert_eq!(engine.storefront().product(&id("1")).unwrap().figures.sold, 6, "{loss:?}");
        }
    });
}

#[test]
fn a_disk_that_is_full_at_the_commit_stops_the_engine_and_loses_nothing_acknowledged() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), Disk::new(6));
    let mount = disk.mount().unwrap();
    let engine = on(&disk, folder.path(), &mount);
    runtime().block_on(async {
        engine.create_product(product("1", 100_000)).await.unwrap();
        disk.set_capacity_bytes(Some(600_000));
        let mut accepted = 0;
        let error = loop {
            match engine.purchase(buy(&format!("b{accepted}"), "1", 1, Some("k"))).await {
                Ok(_) => accepted += 1,
                Err(error) => break error,
            }
            assert!(accepted < 50_000, "the disk was never full");
        };
        assert_eq!(error, CallError::OutcomeUnknown);
        assert!(accepted > 0);
        engine.close_blocking(Duration::ZERO);
        drop(engine);
        disk.set_capacity_bytes(None);
        let folder = tempfile::tempdir().unwrap();
        let engine = on(&disk, folder.path(), &mount);
        for buyer in 0..accepted {
            let again = engine.purchase(buy(&format!("b{buyer}"), "1", 1, Some("k"))).await.unwrap();
            assert_eq!(again.replayed, Replayed::Yes, "buyer {buyer} of {accepted}");
        }
    });
}
