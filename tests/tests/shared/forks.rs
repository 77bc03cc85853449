//! What a forked child can and cannot do with what its parent has.

#![allow(clippy::unwrap_used, reason = "that is how these tests fail")]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, alarm, fork, pause};
use plasma_core::{Notification, PlasmaClient, PlasmaError};
use plasma_store::Store;
use tests::{
    StoreProcess, eventually, in_another_process, role, server_program, wait_for_line, within,
};

use super::{LIMIT, MIB, id, is_whole, put};

/// Forks; the child does this and ends, well or not, and the parent goes on meanwhile.
fn with_child(child: impl FnOnce() -> bool, parent: impl FnOnce()) {
    // SAFETY: the child runs only what the test gives it, on its one thread. What other threads of
    // this process hold at this moment are locks of the test's harness, which the child does not use,
    // and the allocator's, which the C library releases in the child.
    match unsafe { fork() }.expect("a process can be had") {
        ForkResult::Child => {
            let went_well = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
            let code = i32::from(!went_well.unwrap_or(false));
            // SAFETY: it ends the process, without what the parent's threads would do at its end.
            unsafe { nix::libc::_exit(code) }
        }
        ForkResult::Parent { child } => {
            parent();
            let ended = waitpid(child, None).expect("it is a child");
            assert_eq!(ended, WaitStatus::Exited(child, 0));
        }
    }
}

#[test]
fn a_child_is_told_and_lets_go_of_nothing() {
    within(LIMIT, || {
        let store = StoreProcess::start(16 * MIB, &[]);
        let client = store.client();
        for number in 0..3 {
            put(&client, id(number), 1000);
        }
        let held = client.get(id(0), 0).unwrap().unwrap();
        let mut unsealed = client.create(id(10), 10, b"").unwrap();
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let mut held = Some(held);
        let mut heard = client.subscribe().unwrap();
        with_child(
            || {
                // It can read what its parent holds.
                let object = held.take().unwrap();
                let mut right = is_whole(&id(0), object.data());
                let forked =
                    |error: Option<PlasmaError>| matches!(error, Some(PlasmaError::Forked));
                right &= forked(client.get(id(1), 0).err());
                right &= client.list().is_err_and(|error| error.should_reconnect());
                right &= forked(client.get_many(&[id(1), id(2)], -1).err());
                right &= forked(client.contains(&id(1)).err());
                right &= forked(client.create(id(11), 10, b"").err());
                right &= forked(client.create_and_seal(id(11), b"", b"").err());
                right &= forked(client.delete(&id(1)).err());
                right &= forked(client.refresh(&[id(1)]).err());
                right &= forked(client.list().err());
                right &= forked(unsealed.seal().err());
                right &= forked(client.subscribe().err());
                right &= forked(heard.try_recv().err());
                right &= forked(heard.recv_timeout(LIMIT).err());
                drop((object, client.clone()));
                theirs.write_all(&[u8::from(right)]).unwrap();
                right
            },
            || {
                let mut right = [0];
                ours.read_exact(&mut right).unwrap();
                assert_eq!(right, [1]);
            },
        );
        // The parent holds what it held, and goes on.
        let infos = client.list().unwrap();
        let references = |n| {
            infos
                .iter()
                .find(|info| info.id == id(n))
                .map(|info| info.ref_count)
        };
        assert_eq!((references(0), references(10)), (Some(1), Some(1)));
        assert!(is_whole(&id(0), held.unwrap().data()));
        unsealed.seal().unwrap();
        put(&client, id(11), 10);
        // And hears all there is to hear.
        for number in [0, 1, 2, 10, 11] {
            match heard.recv().unwrap() {
                Notification::Sealed(info) => assert_eq!(info.id, id(number)),
                other => panic!("{other:?}"),
            }
        }
    });
}

/// Locks of a connection that another thread of the parent has at the fork are not waited for.
#[test]
fn a_child_does_not_wait_for_its_parents_threads() {
    within(LIMIT, || {
        let store = StoreProcess::start(16 * MIB, &[]);
        for number in 0..2 {
            put(&store.client(), id(number), 1000);
        }
        for client in [store.client(), store.socket_client()] {
            let held = client.get(id(0), 0).unwrap().unwrap();
            let enough = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !enough.load(Ordering::Relaxed) {
                        drop(client.get(id(1), 0).unwrap().unwrap());
                    }
                });
                for number in 0..200 {
                    let mut unsealed = client.create(id(2 + number), 10, b"").unwrap();
                    with_child(
                        || {
                            // Otherwise nobody would end it.
                            alarm::set(20);
                            let shared = held.share();
                            let forked = matches!(unsealed.seal(), Err(PlasmaError::Forked));
                            forked && is_whole(&id(0), shared.data())
                        },
                        || {},
                    );
                }
                enough.store(true, Ordering::Relaxed);
            });
        }
    });
}

/// A thread of the parent is about to begin a session with a store that does not answer.
#[test]
fn a_child_does_not_wait_for_its_parent_to_reconnect() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plasma");
        let store = StoreProcess::start_at(server_program(), &path, 16 * MIB, &[]);
        let builder = PlasmaClient::builder().retries(0).reconnect(true);
        let client = builder.connect(&path).unwrap();
        drop(store);
        // It is left where the store was killed.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        thread::scope(|scope| {
            let asked = scope.spawn(|| client.contains(&id(0)));
            let (parents, _) = listener.accept().unwrap();
            with_child(
                || {
                    alarm::set(20);
                    client.contains(&id(0)).is_err()
                },
                || drop(listener.accept().unwrap()),
            );
            drop(parents);
            assert!(asked.join().unwrap().is_err());
        });
    });
}

/// A get that waits for what never comes, on a connection that `embedding` has by now.
fn waiting_get(
    client: &PlasmaClient,
    embedding: &Child,
) -> thread::JoinHandle<Option<PlasmaError>> {
    let folder = format!("/proc/{}/fd", embedding.id());
    let open = || std::fs::read_dir(&folder).unwrap().count();
    let before = open();
    let client = client.clone();
    let waiting = thread::spawn(move || client.get(id(1), -1).err());
    eventually("the get waits on a connection of its own", || {
        open() > before
    });
    waiting
}

/// A program with a store in it has a child that has the store's end of every connection.
#[test]
fn the_end_of_a_store_is_heard_though_a_child_of_it_lives() {
    const THIS: &str = "forks::the_end_of_a_store_is_heard_though_a_child_of_it_lives";
    if let Some((_, socket)) = role() {
        let store = Store::builder().capacity(16 * MIB).socket(socket).spawn();
        let store = store.unwrap();
        println!("\nserving");
        let next = || std::io::stdin().read_line(&mut String::new()).unwrap();
        next();
        // SAFETY: the child calls nothing but the kernel.
        match unsafe { fork() }.expect("a process can be had") {
            ForkResult::Child => {
                alarm::set(60);
                loop {
                    pause();
                }
            }
            ForkResult::Parent { child } => println!("{child} forked"),
        }
        next();
        store.shutdown().unwrap();
        println!("over");
        next();
        return;
    }
    within(LIMIT, || {
        for killed in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let socket = folder.path().join("plasma");
            let mut embedding = in_another_process(THIS, "embedding", &socket);
            wait_for_line(&mut embedding, "serving");
            let builder = PlasmaClient::builder().retries(0);
            let client = builder.clone().connect(&socket).unwrap();
            let by_socket = builder.clone().shared_memory(false).connect(&socket);
            let by_socket = by_socket.unwrap();
            put(&client, id(0), 1000);
            // What was under way when a store was killed the child keeps waiting.
            let waiting = (!killed)
                .then(|| [&client, &by_socket].map(|client| waiting_get(client, &embedding)));
            let mut told = embedding.stdin.take().unwrap();
            writeln!(told).unwrap();
            let child = wait_for_line(&mut embedding, " forked");
            // The child does not have this one's connection.
            let late = waiting_get(&client, &embedding);
            if killed {
                embedding.kill().unwrap();
            } else {
                writeln!(told).unwrap();
                wait_for_line(&mut embedding, "over");
                drop(told);
            }
            embedding.wait().unwrap();
            let gone = |error: Option<PlasmaError>| {
                assert!(
                    matches!(error, Some(PlasmaError::Disconnected)),
                    "{error:?}"
                );
            };
            gone(late.join().unwrap());
            for waiting in waiting.into_iter().flatten() {
                gone(waiting.join().unwrap());
            }
            gone(client.get(id(0), 0).err());
            gone(client.get(id(1), 100).err());
            gone(client.contains(&id(0)).err());
            gone(client.create_and_seal(id(2), b"", b"").err());
            gone(client.list().err());
            gone(client.subscribe().err());
            if !killed {
                // Who shares nothing has only the socket to learn it from.
                gone(by_socket.list().err());
            }
            kill(Pid::from_raw(child.parse().unwrap()), Signal::SIGKILL).unwrap();
        }
    });
}

#[test]
fn a_child_of_a_client_that_may_reconnect_has_a_connection_of_its_own() {
    within(LIMIT, || {
        let store = StoreProcess::start(16 * MIB, &[]);
        let builder = PlasmaClient::builder().retries(0).reconnect(true);
        let client = builder.connect(store.socket()).unwrap();
        put(&client, id(0), 1000);
        for _ in 0..5 {
            with_child(
                || {
                    let object = client.get(id(0), 0).unwrap().unwrap();
                    put(&client, id(1), 10);
                    client.delete(&id(1)).unwrap();
                    let infos = client.list().unwrap();
                    is_whole(&id(0), object.data()) && infos.len() == 1 && infos[0].ref_count >= 1
                },
                || {
                    for _ in 0..1000 {
                        let object = client.get(id(0), 0).unwrap().unwrap();
                        assert!(is_whole(&id(0), object.data()));
                    }
                },
            );
        }
        super::all_is_accounted_for(&store, &client);
    });
}
