use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::*;
use crate::room::fake_worker::FakeWorker;
use crate::room::task::MAILBOX;
use crate::room::{AudioMode, Mode, Notice};
use crate::worker::{Command, Event, VoiceLimits};

const LIMITS: Limits = Limits {
    peers_per_room: 2,
    tracks_per_peer: 2,
    empty_for: Duration::from_secs(60),
    voices: VoiceLimits {
        audio: None,
        video: None,
    },
    gone_after: Duration::from_secs(10),
};

fn request() -> JoinRequest {
    JoinRequest {
        name: Some("Ann".into()),
        mode: Mode::Sfu,
        audio: AudioMode::Forwarded,
        publish: true,
        max_receive_bps: None,
        canvas: None,
    }
}

async fn join(
    manager: &RoomManager,
    room: &str,
    peer: u64,
) -> Result<(Membership, mpsc::Receiver<Notice>), RoomError> {
    let (mailbox, notices) = mpsc::channel(MAILBOX);
    let membership = manager.join(room, PeerId(peer), request(), mailbox).await?;
    Ok((membership, notices))
}

#[tokio::test]
async fn a_room_is_made_on_first_use_and_removed_when_it_stays_empty() {
    let mut worker = FakeWorker::new(64);
    let limits = Limits {
        empty_for: Duration::from_millis(50),
        voices: Default::default(),
        ..LIMITS
    };
    let manager = RoomManager::new(vec![worker.handle()], limits, 10);
    let (membership, mut notices) = join(&manager, "a", 1).await.expect("joined");
    assert!(matches!(notices.recv().await, Some(Notice::Welcome { .. })));
    assert_eq!(worker.expect_peer().await, PeerId(1));
    assert_eq!(manager.room_count(), 1);
    drop(membership);
    worker.expect_removed(PeerId(1)).await;
    let closed = |c: &Command| matches!(c, Command::CloseRoom { .. }).then_some(());
    worker.expect("CloseRoom", closed).await;
    assert_eq!(manager.room_count(), 0);
    join(&manager, "a", 2).await.expect("a new one is made");
}

#[tokio::test]
async fn the_limits_on_rooms_and_members_are_told() {
    let worker = FakeWorker::new(64);
    let manager = RoomManager::new(vec![worker.handle()], LIMITS, 2);
    let _first = join(&manager, "a", 1).await.expect("joined");
    let _second = join(&manager, "a", 2).await.expect("joined");
    let full = join(&manager, "a", 3).await.map(|_| ());
    assert_eq!(full, Err(RoomError::Join(JoinError::RoomFull(2))));
    manager
        .create(VoiceWishes::default())
        .expect("the second room");
    assert_eq!(
        manager.create(VoiceWishes::default()),
        Err(RoomError::TooManyRooms(2))
    );
    let refused = join(&manager, "c", 4).await.map(|_| ());
    assert_eq!(refused, Err(RoomError::TooManyRooms(2)));
}

#[tokio::test]
async fn rooms_are_spread_over_the_workers() {
    let mut workers: Vec<FakeWorker> = (0..3).map(|_| FakeWorker::new(64)).collect();
    let handles = workers.iter().map(FakeWorker::handle).collect();
    let manager = RoomManager::new(handles, LIMITS, 10);
    for _ in 0..3 {
        manager.create(VoiceWishes::default()).expect("made");
    }
    for worker in &mut workers {
        let opened = |c: &Command| matches!(c, Command::OpenRoom { .. }).then_some(());
        worker.expect("OpenRoom", opened).await;
    }
}

#[tokio::test]
async fn without_workers_there_are_no_rooms() {
    let manager = RoomManager::new(Vec::new(), LIMITS, 10);
    assert_eq!(
        manager.create(VoiceWishes::default()),
        Err(RoomError::NoWorker)
    );
}

#[tokio::test]
async fn a_closed_manager_ends_its_rooms_and_makes_no_new_ones() {
    let worker = FakeWorker::new(64);
    let manager = RoomManager::new(vec![worker.handle()], LIMITS, 10);
    let (_membership, mut notices) = join(&manager, "a", 1).await.expect("joined");
    manager.close().await;
    while notices.recv().await.is_some() {}
    let refused = join(&manager, "a", 2).await.map(|_| ());
    assert_eq!(refused, Err(RoomError::ShuttingDown));
}

#[tokio::test]
async fn a_worker_that_takes_nothing_gets_everything_later_and_in_order() {
    let mut worker = FakeWorker::new(1);
    let manager = RoomManager::new(vec![worker.handle()], LIMITS, 10);
    let (membership, mut notices) = join(&manager, "a", 1).await.expect("joined");
    let count = 2 * crate::room::task::BACKLOG;
    for i in 0..count {
        let candidate = Request::Candidate(i.to_string());
        membership.request(candidate).await.expect("the room runs");
    }
    let mut overloaded = 0;
    while let Ok(Some(notice)) =
        tokio::time::timeout(Duration::from_millis(300), notices.recv()).await
    {
        overloaded +=
            usize::from(matches!(notice, Notice::Error(text) if text.contains("overloaded")));
    }
    assert!(overloaded > 0 && overloaded < count, "{overloaded}");
    assert_eq!(
        worker.expect_peer().await,
        PeerId(1),
        "after the room's own opening"
    );
    for expected in 0..count - overloaded {
        let next = |c: &Command| match c {
            Command::Candidate { candidate, .. } => Some(candidate.clone()),
            _ => None,
        };
        assert_eq!(worker.expect("Candidate", next).await, expected.to_string());
    }
}

#[tokio::test]
async fn a_member_that_does_not_read_is_removed_and_the_others_stay() {
    let mut worker = FakeWorker::new(64);
    let manager = RoomManager::new(vec![worker.handle()], LIMITS, 10);
    let (_slow, mut unread) = join(&manager, "a", 1).await.expect("joined");
    let (_other, mut notices) = join(&manager, "a", 2).await.expect("joined");
    worker.expect_peer().await;
    worker.expect_peer().await;
    for peer in [1, 2] {
        for _ in 0..=MAILBOX {
            let (peer, message) = (PeerId(peer), "x".to_owned());
            worker.send(Event::Failed { peer, message }).await;
            if peer == PeerId(2) {
                notices.recv().await.expect("still a member");
            }
        }
    }
    worker.expect_removed(PeerId(1)).await;
    let snapshot = manager.snapshot("a").await.expect("the room runs");
    let members: Vec<PeerId> = snapshot.peers.iter().map(|p| p.id).collect();
    assert_eq!(members, [PeerId(2)]);
    while unread.recv().await.is_some() {}
}

#[tokio::test]
async fn rooms_are_spread_and_a_busy_worker_gets_none() {
    let begin = std::time::Instant::now();
    let loads: Vec<_> = (0..3)
        .map(|_| Arc::new(crate::worker::Load::default()))
        .collect();
    let fakes: Vec<_> = (0..3).map(|_| FakeWorker::new(1024)).collect();
    let workers = fakes.iter().zip(&loads);
    let handles = workers.map(|(fake, load)| fake.handle().with_load(load.clone()));
    let manager = RoomManager::new(handles.collect(), LIMITS, 100);
    let rooms_of = || {
        let mut count = [0; 3];
        manager
            .shared
            .lock()
            .rooms
            .values()
            .for_each(|entry| count[entry.worker] += 1);
        count
    };
    for _ in 0..9 {
        manager.create(VoiceWishes::default()).expect("a room");
    }
    assert_eq!(rooms_of(), [3, 3, 3]);
    // The first carries as much as a conference of ten with cameras, the second has silent members.
    loads[0].note(begin, 0, 10);
    loads[0].note(begin + Duration::from_secs(1), 20_000, 10);
    loads[1].note(begin, 0, 8);
    for _ in 0..4 {
        manager.create(VoiceWishes::default()).expect("a room");
    }
    assert_eq!(rooms_of(), [3, 3, 7]);
    for _ in 0..4 {
        manager.create(VoiceWishes::default()).expect("a room");
    }
    assert_eq!(rooms_of(), [3, 5, 9], "then the second is no busier");
}
