//! What threads and processes share, in every order that the memory model allows.
//!
//! Each model is small and whole: a store and a client on two threads, over the code that is used.
//! Beside it stands its twin, where one fence or one check is left out ([`Skip`]) and that is seen to
//! go wrong: a model that cannot fail proves nothing.
//!
//! ```sh
//! RUSTFLAGS="--cfg plasma_loom" cargo test --release -p plasma-core --lib models
//! ```

use std::sync::{Mutex, MutexGuard, PoisonError};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use super::index::{Extent, Found, Index, IndexWriter, Listing, UID_STEP};
use super::page::{PageHeader, Shape};
use super::pins::{Got, Hint, PinView, Pins};
use super::ring::{Created, Op, Requests, RingRequest, Submitter};
use super::sync::fence;
use super::twins::{Skip, skip};
use crate::ObjectId;

/// How often one thread may take the processor from another: more finds no more here, and takes
/// hours.
const PREEMPTIONS: usize = 3;

/// What is left out is left out of all models, so they take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    // A model that fails has failed; the next is another.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check(model: impl Fn() + Send + Sync + 'static) {
    let _turn = turn();
    run(model);
}

fn run(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(model);
}

/// Checks that a model goes wrong where something is left out.
fn fails_without(what: Skip, model: impl Fn() + Send + Sync + 'static) {
    let _turn = turn();
    skip(Some(what));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(model)));
    skip(None);
    assert!(outcome.is_err(), "nothing goes wrong without {what:?}");
}

const ID: ObjectId = ObjectId::new([7; ObjectId::LEN]);

fn listing(uid: u64, offset: u64) -> Listing {
    Listing {
        uid,
        id: ID,
        segment: 1,
        offset,
        data_size: offset,
        metadata_size: offset,
        slot: offset as u32,
    }
}

/// Where such an object lies.
fn extent_at(offset: u64) -> Extent {
    Extent {
        segment: 1,
        offset,
        data_size: offset,
        metadata_size: offset,
    }
}

/// The first uid that there is.
const UID: u64 = super::index::FIRST_UID;

/// A client's pins, as both sides see them.
fn pins() -> (Pins, PinView) {
    let (_, memory) = PageHeader::model(1);
    (Pins::new(memory.clone()), PinView::new(memory))
}

/// A reader gets and reads an object that the store deletes and whose memory it uses again.
fn pin_against_free() {
    let mut store = IndexWriter::model(2);
    let index = store.index().clone();
    let (pins, view) = pins();
    // The checker sees to it that nobody reads this while somebody writes it, or might.
    let memory = Arc::new(UnsafeCell::new(UID));
    store.publish(&listing(UID, 1));
    let reader = {
        let memory = Arc::clone(&memory);
        thread::spawn(move || {
            let hint = Hint::default();
            if let Got::Pinned(pin, extent) = pins.get(&index, &ID, &hint) {
                assert_eq!(extent, extent_at(1), "half of it");
                // SAFETY: that it is not written meanwhile is what the model is to show.
                let read = memory.with(|memory| unsafe { *memory });
                assert_eq!(read, UID, "read what was freed");
                pins.release(&index, pin, &ID, &hint);
            }
        })
    };
    if !is_held(&mut store, &view) {
        // SAFETY: that nobody reads it meanwhile is what the model is to show.
        memory.with_mut(|memory| unsafe { *memory = 0 });
    }
    reader.join().unwrap();
}

/// Withdraws the object and finds out whether it is held, as the store does.
fn is_held(store: &mut IndexWriter, view: &PinView) -> bool {
    store.withdraw(&ID, UID);
    if !super::twins::skips(Skip::StoreFence) {
        fence(Ordering::SeqCst);
    }
    let held = !super::twins::skips(Skip::Scan) && view.held().any(|(uid, _)| uid == UID);
    if held {
        store.restore(&ID, UID, true);
    } else {
        store.unpublish(&ID, UID);
    }
    held
}

#[test]
fn nothing_is_freed_that_is_held() {
    check(pin_against_free);
}

#[test]
fn without_the_readers_fence_it_would_be() {
    fails_without(Skip::ReaderFence, pin_against_free);
}

#[test]
fn without_the_stores_fence_it_would_be() {
    fails_without(Skip::StoreFence, pin_against_free);
}

#[test]
fn without_looking_at_the_stamp_again_it_would_be() {
    fails_without(Skip::Recheck, pin_against_free);
}

#[test]
fn without_looking_at_the_pins_it_would_be() {
    fails_without(Skip::Scan, pin_against_free);
}

#[test]
fn without_release_on_letting_go_it_would_be() {
    fails_without(Skip::Release, pin_against_free);
}

/// A store wants an object back that a reader holds; one of them sees to it.
fn wanted_against_release() {
    let mut store = IndexWriter::model(2);
    let index = store.index().clone();
    let (pins, view) = pins();
    store.publish(&listing(UID, 1));
    let hint = Hint::default();
    let Got::Pinned(pin, _) = pins.get(&index, &ID, &hint) else {
        panic!("it is listed");
    };
    let told = Arc::new(AtomicBool::new(false));
    let reader = {
        let told = Arc::clone(&told);
        thread::spawn(move || {
            let wanted = pins.release(&index, pin, &ID, &hint);
            told.store(wanted, Ordering::Relaxed);
        })
    };
    let held = is_held(&mut store, &view);
    reader.join().unwrap();
    assert!(
        !held || told.load(Ordering::Relaxed),
        "nobody would delete it"
    );
}

#[test]
fn what_is_wanted_is_given_back_by_one_or_seen_by_the_other() {
    check(wanted_against_release);
}

#[test]
fn without_the_fence_behind_letting_go_nobody_would_see_it() {
    fails_without(Skip::ReleaseFence, wanted_against_release);
}

/// A reader looks while an object is deleted and another listed in its place: what it finds is one
/// of them, whole.
fn publish_against_lookup() {
    let mut store = IndexWriter::model(2);
    let index = store.index().clone();
    store.publish(&listing(UID, 1));
    let reader = thread::spawn(move || {
        if let Found::Here(seen) = index.find(&ID)
            && let known = seen.known()
            && let Some(extent) = seen.extent()
        {
            let number = (seen.uid - UID) / UID_STEP + 1;
            assert_eq!(u64::from(known.slot), number, "another's");
            assert_eq!(extent, extent_at(number), "half of one");
        }
    });
    store.withdraw(&ID, UID);
    store.unpublish(&ID, UID);
    store.publish(&listing(UID + UID_STEP, 2));
    reader.join().unwrap();
}

#[test]
fn what_is_found_is_whole() {
    check(publish_against_lookup);
}

#[test]
fn without_the_release_fence_it_would_not_be() {
    fails_without(Skip::PublishFence, publish_against_lookup);
}

#[test]
fn without_the_fence_before_the_stamp_it_would_not_be() {
    fails_without(Skip::ExtentFence, publish_against_lookup);
}

#[test]
fn without_reading_the_stamp_behind_it_it_would_not_be() {
    fails_without(Skip::Recheck, publish_against_lookup);
}

/// A reader looks for an object that is being listed where another was: it is not found as that one.
fn name_against_lookup() {
    let mut store = IndexWriter::model(2);
    let index = store.index().clone();
    let other = (0..)
        .map(|number| ObjectId::new([number; ObjectId::LEN]))
        .find(|id| *id != ID && index.home(id, 2) == index.home(&ID, 2))
        .expect("one in two does");
    store.publish(&Listing {
        id: other,
        ..listing(UID, 1)
    });
    let reader = thread::spawn(move || {
        if let Found::Here(seen) = index.find(&ID) {
            assert_eq!(seen.uid, UID + UID_STEP, "it is the other's");
        }
    });
    store.withdraw(&other, UID);
    store.unpublish(&other, UID);
    store.publish(&listing(UID + UID_STEP, 2));
    reader.join().unwrap();
}

#[test]
fn what_is_found_has_that_name() {
    check(name_against_lookup);
}

#[test]
fn without_reading_the_stamp_twice_it_would_have_another() {
    fails_without(Skip::FindRecheck, name_against_lookup);
}

/// A reader looks for an object that moves because the table grows: it is never missed.
fn growth_against_lookup() {
    let mut store = IndexWriter::model(2);
    let index: Index = store.index().clone();
    let id = (0..)
        .map(|number| ObjectId::new([number; ObjectId::LEN]))
        .find(|id| [2, 3].map(|homes| index.home(id, homes)) == [0, 2])
        .expect("one in four does");
    let moving = Listing {
        id,
        ..listing(UID, 1)
    };
    store.publish(&moving);
    let reader = thread::spawn(move || {
        let found = index.find(&id);
        assert!(!matches!(found, Found::Nowhere), "it is there all the time");
    });
    store.add_homes(1);
    reader.join().unwrap();
}

#[test]
fn what_moves_is_not_missed() {
    check(growth_against_lookup);
}

#[test]
fn without_looking_at_the_homes_again_it_would_be() {
    fails_without(Skip::HomesRecheck, growth_against_lookup);
}

/// A client asks and sleeps if it is not answered, a store sleeps if it is not asked: whoever sleeps
/// is woken.
fn ring_with_sleep_and_wake() {
    let shape = Shape {
        pins: 1,
        requests: 1,
        content_bytes: 0,
    };
    let (mut client, mut store) = Submitter::model(&shape);
    let bell = Arc::new(AtomicBool::new(false));
    let wake = Arc::new(AtomicBool::new(false));
    store.need_wakeup(false);
    let asking = {
        let (bell, wake) = (Arc::clone(&bell), Arc::clone(&wake));
        thread::spawn(move || {
            let request = RingRequest::about(Op::Delete, ID);
            client.push(request, [&[], &[]]).unwrap();
            if client.tell() {
                bell.store(true, Ordering::Release);
            }
            // It sleeps, if it may, until it is woken; which is seen when both are done.
            (client.may_sleep(), client, wake)
        })
    };
    // It looks once, and then sleeps if it may.
    let serve = |store: &mut Requests| {
        while store.waiting() != Ok(0) {
            assert_eq!(store.take().map(|request| request.op), Ok(Op::Delete));
            store.answer(Ok(()), Created::default());
            if store.client_sleeps() {
                wake.store(true, Ordering::Release);
            }
        }
    };
    serve(&mut store);
    let store_sleeps = store.may_sleep();
    if !store_sleeps {
        store.need_wakeup(false);
        serve(&mut store);
    }
    let (client_sleeps, mut client, woken) = asking.join().unwrap();
    if client.next_answer() == Ok(None) {
        assert!(store_sleeps, "it was awake and has not answered");
        assert!(bell.load(Ordering::Acquire), "the store sleeps for ever");
    } else {
        let woken = woken.load(Ordering::Acquire);
        assert!(!client_sleeps || woken, "the client sleeps for ever");
    }
}

#[test]
fn nobody_sleeps_while_there_is_something_to_do() {
    check(ring_with_sleep_and_wake);
}

#[test]
fn without_the_clients_fence_the_store_would() {
    fails_without(Skip::TellFence, ring_with_sleep_and_wake);
}

#[test]
fn without_the_stores_fence_the_store_would() {
    fails_without(Skip::RestFence, ring_with_sleep_and_wake);
}

#[test]
fn without_the_fence_before_it_looks_the_client_would() {
    fails_without(Skip::SleepFence, ring_with_sleep_and_wake);
}

#[test]
fn without_the_fence_behind_an_answer_the_client_would() {
    fails_without(Skip::AnswerFence, ring_with_sleep_and_wake);
}
