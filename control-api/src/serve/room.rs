//! How many connections there may be, of everybody together and of one address, and who goes when there are too many.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The connections of a listener.
///
/// When all places are taken, the connection goes that has been without a request for longest: one that sends half a head, or
/// nothing, or is kept for a next request. So whoever only holds connections cannot keep out those who ask.
pub(super) struct Room {
    places: Arc<Semaphore>,
    most: u32,
    /// Of one address; 0 for any number.
    most_of_one: u32,
    seats: Mutex<Seats>,
}

#[derive(Default)]
struct Seats {
    next: u64,
    of_address: HashMap<IpAddr, u32>,
    /// Those without a request, the longest first.
    idle: IdleSeats,
    /// Somebody waits for a place, and nobody was idle.
    wanted: bool,
}

struct IdleSeats(LruCache<u64, Arc<Notify>>);

impl Default for IdleSeats {
    fn default() -> Self {
        Self(LruCache::unbounded()) // bounded by the number of places
    }
}

/// A place for a connection that was not accepted yet.
pub(super) struct Place(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// A connection's place. It is free again when this is dropped.
pub(super) struct Seat {
    room: Arc<Room>,
    number: u64,
    address: IpAddr,
    requests: AtomicUsize,
    asked: AtomicU64,
    evicted: Arc<Notify>,
    connection: Connection,
    _place: Place,
}

/// The connection that a request came over, among the request's extensions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connection(Arc<Notify>);

/// A request that runs, or whose response is being sent. Ends when dropped.
pub(super) struct Request(Arc<Seat>);

impl Room {
    pub(super) fn new(most: u32, most_of_one: u32) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(most as usize));
        Arc::new(Self { places, most, most_of_one, seats: Mutex::default() })
    }

    /// A free place, made by closing the connection that has been idle for longest if there is none.
    pub(super) async fn place(&self) -> Place {
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Place(permit);
        }
        self.make_room();
        match Arc::clone(&self.places).acquire_owned().await {
            Ok(permit) => Place(permit),
            // Of a closed semaphore, and nobody closes it.
            Err(_) => std::future::pending().await,
        }
    }

    /// Closes the connection that has been idle for longest, or, while none is, the next one that becomes so.
    pub(super) fn make_room(&self) {
        self.seats().evict_one();
    }

    /// Gives a place to a connection from this address; `None` when the address has its share already.
    pub(super) fn seat(self: &Arc<Self>, place: Place, address: IpAddr) -> Option<Arc<Seat>> {
        let address = counted_as(address);
        let evicted = Arc::new(Notify::new());
        let number = {
            let mut seats = self.seats();
            let taken = seats.of_address.entry(address).or_default();
            if self.most_of_one > 0 && *taken >= self.most_of_one {
                return None;
            }
            *taken += 1;
            seats.next += 1;
            let number = seats.next;
            seats.idle.0.put(number, Arc::clone(&evicted));
            number
        };
        let (requests, asked) = (AtomicUsize::new(0), AtomicU64::new(0));
        let (room, connection) = (Arc::clone(self), Connection::default());
        Some(Arc::new(Seat { room, number, address, requests, asked, evicted, connection, _place: place }))
    }

    /// Returns when nobody has a place any more.
    pub(super) async fn emptied(&self) {
        // An error is of a closed semaphore, as above.
        drop(self.places.acquire_many(self.most).await);
    }

    /// No change of the seats is left half done, and no code of others runs under the lock.
    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seats {
    fn evict_one(&mut self) {
        match self.idle.0.pop_lru() {
            Some((_, evicted)) => evicted.notify_one(),
            None => self.wanted = true,
        }
    }

    fn set_idle(&mut self, number: u64, evicted: &Arc<Notify>) {
        if std::mem::take(&mut self.wanted) {
            evicted.notify_one();
        } else {
            self.idle.0.put(number, Arc::clone(evicted));
        }
    }
}

impl Seat {
    /// Returns when the connection is to end for others' sake, if nothing is under way.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Returns when the connection is to be closed whatever is under way.
    pub(super) async fn cut_off(&self) {
        self.connection.0.notified().await;
    }

    /// Whether no request is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Acquire) == 0
    }

    /// Requests that came since the beginning.
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Acquire)
    }

    /// A handle by which others may close it.
    pub(super) fn connection(&self) -> Connection {
        self.connection.clone()
    }

    /// A request has come.
    pub(super) fn request(self: &Arc<Self>) -> Request {
        self.asked.fetch_add(1, Ordering::AcqRel);
        let mut seats = self.room.seats();
        if self.requests.fetch_add(1, Ordering::AcqRel) == 0 {
            seats.idle.0.pop(&self.number);
        }
        Request(Arc::clone(self))
    }
}

impl Connection {
    /// Closes it, whatever is under way.
    pub(crate) fn close(&self) {
        self.0.notify_one();
    }

    #[cfg(test)]
    pub(crate) fn is_closed(&self) -> bool {
        use futures::FutureExt;
        self.0.notified().now_or_never().is_some()
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let seat = &self.0;
        let mut seats = seat.room.seats();
        // Under the lock, as the change to the list: a request that comes at the same time finds both or neither.
        if seat.requests.fetch_sub(1, Ordering::AcqRel) == 1 {
            seats.set_idle(seat.number, &seat.evicted);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.room.seats();
        seats.idle.0.pop(&self.number);
        if let Some(taken) = seats.of_address.get_mut(&self.address) {
            *taken -= 1;
            if *taken == 0 {
                seats.of_address.remove(&self.address);
            }
        }
    }
}

/// Somebody with IPv6 has 2^64 addresses of one network.
fn counted_as(address: IpAddr) -> IpAddr {
    const NETWORK: u128 = !0 << 64;
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & NETWORK).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    async fn seat(room: &Arc<Room>, address: IpAddr) -> Option<Arc<Seat>> {
        room.seat(room.place().await, address)
    }

    fn is_evicted(seat: &Seat) -> bool {
        seat.evicted().now_or_never().is_some()
    }

    #[tokio::test]
    async fn the_connection_that_was_idle_for_longest_makes_room() {
        let room = Room::new(3, 0);
        let (first, second, third) =
            (seat(&room, HERE).await.unwrap(), seat(&room, HERE).await.unwrap(), seat(&room, HERE).await.unwrap());
        // The first has asked since the second has.
        drop(first.request());
        let busy = second.request();
        assert!(room.place().now_or_never().is_none());
        assert!(is_evicted(&third) && !is_evicted(&first) && !is_evicted(&second));
        drop(third);
        assert!(room.place().now_or_never().is_some());
        assert!(!busy.0.is_idle() && first.is_idle());
    }

    #[tokio::test]
    async fn whoever_becomes_idle_while_somebody_waits_goes() {
        let room = Room::new(1, 0);
        let only = seat(&room, HERE).await.unwrap();
        let (one, two) = (only.request(), only.request());
        let mut waiting = Box::pin(room.place());
        assert!((&mut waiting).now_or_never().is_none());
        drop(one);
        assert!(!is_evicted(&only), "the other request is still under way");
        drop(two);
        assert!(is_evicted(&only));
        drop(only);
        waiting.await;
    }

    #[tokio::test]
    async fn an_address_has_its_share_and_a_network_of_ipv6_is_one() {
        let room = Room::new(10, 2);
        let taken = [seat(&room, HERE).await.unwrap(), seat(&room, HERE).await.unwrap()];
        assert!(seat(&room, HERE).await.is_none());
        assert!(seat(&room, "::ffff:127.0.0.1".parse().unwrap()).await.is_none());
        let v6 = [
            seat(&room, "2001:db8::1".parse().unwrap()).await.unwrap(),
            seat(&room, "2001:db8::2".parse().unwrap()).await.unwrap(),
        ];
        assert!(seat(&room, "2001:db8::3".parse().unwrap()).await.is_none());
        assert!(seat(&room, "2001:db8:0:1::3".parse().unwrap()).await.is_some());
        drop((taken, v6));
        assert!(seat(&room, HERE).await.is_some());
        assert!(room.seats().of_address.is_empty() && room.seats().idle.0.is_empty());
    }
}
