//! Which node is asked: the least loaded for an upload, the nearest to the viewer for playback, and a random one
//! where places are unknown (white paper 4.2.1). Pure: randomness is an argument.

use std::cmp::Ordering;

use rand::Rng;
use rand::seq::SliceRandom;

/// A place on earth, in degrees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    latitude: f64,
    longitude: f64,
}

impl Place {
    /// `None` unless the latitude is within ±90 and the longitude within ±180 degrees.
    #[must_use]
    pub fn new(latitude: f64, longitude: f64) -> Option<Self> {
        // NaN is in no range.
        let fits = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
        fits.then_some(Self { latitude, longitude })
    }

    /// Reads `<latitude>,<longitude>`, for example `48.86,2.35`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (latitude, longitude) = text.split_once(',')?;
        Self::new(latitude.trim().parse().ok()?, longitude.trim().parse().ok()?)
    }

    /// Degrees north of the equator.
    #[must_use]
    pub fn latitude(self) -> f64 {
        self.latitude
    }

    /// Degrees east of Greenwich.
    #[must_use]
    pub fn longitude(self) -> f64 {
        self.longitude
    }

    /// Great-circle distance in kilometres, by the haversine formula on a sphere of the earth's mean radius. Good
    /// to 0.5 %, which is far more than the choice of a node needs.
    #[must_use]
    pub fn distance_km(self, other: Self) -> f64 {
        const MEAN_RADIUS_KM: f64 = 6371.0088; // IUGG
        let (from, to) = (self.latitude.to_radians(), other.latitude.to_radians());
        let half_north = (to - from) / 2.0;
        let half_east = (other.longitude - self.longitude).to_radians() / 2.0;
        let haversine = half_north.sin().powi(2) + from.cos() * to.cos() * half_east.sin().powi(2);
        // Rounding can push antipodes a hair above 1, where asin is not defined.
        2.0 * MEAN_RADIUS_KM * haversine.sqrt().min(1.0).asin()
    }
}

/// What the choice knows about a node that is up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The node's own figure of its work, without unit; grows with work.
    pub load: f64,
    /// Bytes below the node's quota.
    pub free_bytes: u64,
    /// Where it stands, if its operator said so.
    pub place: Option<Place>,
}

/// The order in which nodes are asked to take an upload: least load first, ties by most free space, then at random.
/// Returns indices into `candidates`, each once.
pub fn upload_order(candidates: &[Candidate], rng: &mut impl Rng) -> Vec<usize> {
    let mut order = shuffled(candidates.len(), rng);
    // The sort is stable, so what compares equal stays shuffled.
    order.sort_by(|&a, &b| {
        let (a, b) = (&candidates[a], &candidates[b]);
        a.load.total_cmp(&b.load).then(b.free_bytes.cmp(&a.free_bytes))
    });
    order
}

/// The order in which nodes are asked to serve a viewer: nearest first where both places are known, the others
/// behind in random order; all at random when the viewer's place is unknown. Returns indices, each once.
pub fn playback_order(candidates: &[Candidate], viewer: Option<Place>, rng: &mut impl Rng) -> Vec<usize> {
    let mut order = shuffled(candidates.len(), rng);
    if let Some(viewer) = viewer {
        let distance = |index: usize| candidates[index].place.map(|place| place.distance_km(viewer));
        order.sort_by(|&a, &b| known_first(distance(a), distance(b)));
    }
    order
}

fn known_first(a: Option<f64>, b: Option<f64>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

fn shuffled(count: usize, rng: &mut impl Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(rng);
    order
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const PARIS: (f64, f64) = (48.8566, 2.3522);
    const BERLIN: (f64, f64) = (52.52, 13.405);
    const TOKYO: (f64, f64) = (35.6762, 139.6503);

    fn place(at: (f64, f64)) -> Place {
        Place::new(at.0, at.1).unwrap()
    }

    fn candidate(load: f64, free_bytes: u64, at: Option<(f64, f64)>) -> Candidate {
        Candidate { load, free_bytes, place: at.map(place) }
    }

    #[test]
    fn places_outside_the_globe_are_refused() {
        assert!(Place::new(90.1, 0.0).is_none());
        assert!(Place::new(0.0, -180.5).is_none());
        assert!(Place::new(f64::NAN, 0.0).is_none());
        assert_eq!(Place::parse("48.8566, 2.3522"), Some(place(PARIS)));
        assert!(Place::parse("48.8").is_none());
        assert!(Place::parse("north,east").is_none());
    }

    #[test]
    fn distances_fit_the_atlas() {
        let berlin = place(PARIS).distance_km(place(BERLIN));
        assert!((870.0..885.0).contains(&berlin), "{berlin}");
        let antipodes = place((0.0, 0.0)).distance_km(place((0.0, 180.0)));
        assert!((20_010.0..20_020.0).contains(&antipodes), "{antipodes}");
        // The short way across the date line.
        assert!(place((0.0, 179.5)).distance_km(place((0.0, -179.5))) < 120.0);
    }

    #[test]
    fn an_upload_goes_to_the_least_load_then_the_most_room() {
        let nodes = [candidate(0.5, 900, None), candidate(0.1, 10, None), candidate(0.1, 500, None)];
        for seed in 0..20 {
            assert_eq!(upload_order(&nodes, &mut StdRng::seed_from_u64(seed)), [2, 1, 0]);
        }
    }

    #[test]
    fn full_ties_are_broken_at_random() {
        let nodes = [candidate(0.1, 10, None); 3];
        let firsts: std::collections::BTreeSet<usize> =
            (0..64).map(|seed| upload_order(&nodes, &mut StdRng::seed_from_u64(seed))[0]).collect();
        assert_eq!(firsts.len(), 3);
    }

    #[test]
    fn playback_goes_to_the_nearest_and_unknown_places_come_last() {
        let nodes = [candidate(0.0, 0, Some(TOKYO)), candidate(0.0, 0, None), candidate(9.0, 0, Some(BERLIN))];
        for seed in 0..20 {
            let order = playback_order(&nodes, Some(place(PARIS)), &mut StdRng::seed_from_u64(seed));
            assert_eq!(order, [2, 0, 1]);
        }
    }

    #[test]
    fn playback_is_random_where_the_viewer_is_unknown() {
        let nodes = [candidate(0.0, 0, Some(TOKYO)), candidate(0.0, 0, Some(BERLIN))];
        let firsts: std::collections::BTreeSet<usize> =
            (0..64).map(|seed| playback_order(&nodes, None, &mut StdRng::seed_from_u64(seed))[0]).collect();
        assert_eq!(firsts.len(), 2);
    }

    #[test]
    fn no_nodes_give_no_order() {
        assert!(upload_order(&[], &mut StdRng::seed_from_u64(1)).is_empty());
    }
}
