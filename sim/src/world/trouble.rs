//! What goes wrong: faults, outages, and nodes that come and go.

use super::{Event, WARM_UP_MS, World};
use crate::{
    faults::{self, Fault},
    node::{Block, Conduct, Node, Power, Publication},
    replication::{Group, Outage, Sabotage},
    sessions::Sessions,
};
use chunkstore_block::BlockId;
use dht_core::{Input, Position, Time};
use std::{collections::BTreeSet, time::Duration};

/// New nodes that come at once come within so long.
const JOIN_STORM_MS: u64 = 10_000;

/// Discovery goes on naming a dead node for so long.
const STALE_MS: (u64, u64) = (30_000, 120_000);

impl World {
    pub(super) fn fault(&mut self, fault: Fault) {
        *self.counts.faults.entry(fault).or_default() += 1;
        let length = self.settings.scaled(faults::duration(&mut self.random, fault));
        match fault {
            Fault::Join => {
                let node = self.add_node();
                self.begin(node);
                if self.settings.sabotage == Some(Sabotage::DropUnproved) {
                    self.drop_for(node);
                }
            }
            Fault::Partition if self.apart.is_empty() => {
                let nodes = self.nodes.len();
                self.apart = (0..nodes).filter(|_| self.random.below(10) == 0).collect();
                self.schedule(self.now + length, Event::End { fault, node: 0 });
            }
            Fault::Partition => {}
            Fault::Deletion => self.give_order(),
            Fault::StandInDeath => {
                if let Some(node) = self.any_stand_in() {
                    self.hit(Fault::Death, node);
                } else {
                    *self.counts.faults.entry(fault).or_default() -= 1;
                }
            }
            Fault::Crash
            | Fault::WrongBytes
            | Fault::LostWrites
            | Fault::Misled
            | Fault::Death
            | Fault::Liar
            | Fault::FullDisk
            | Fault::Damage
            | Fault::Rot
            | Fault::WrongSums
            | Fault::Hoarder => {
                let Some(node) = self.any_up() else { return };
                self.hit(fault, node);
                if length != Duration::MAX {
                    self.schedule(self.now + length, Event::End { fault, node });
                }
            }
        }
    }

    pub(super) fn hit(&mut self, fault: Fault, node: usize) {
        match fault {
            Fault::Crash => self.switch_off(node, Power::Down),
            Fault::Death => {
                self.switch_off(node, Power::Dead);
                self.destroy_all(node, "a death");
                self.nodes[node].store.clear();
            }
            Fault::Liar => {
                self.destroy_all(node, "a disk");
                self.nodes[node].conduct = Conduct::Claims;
            }
            Fault::WrongBytes => {
                self.destroy_all(node, "wrong bytes");
                self.nodes[node].conduct = Conduct::GivesWrongBytes;
            }
            Fault::LostWrites => self.lose_writes(node),
            Fault::Misled => self.nodes[node].misled = true,
            Fault::WrongSums => self.nodes[node].wrong_sums = true,
            Fault::Hoarder => self.hoard(node),
            Fault::FullDisk => {
                self.nodes[node].quota_bytes = self.nodes[node].used_bytes;
                self.input(node, Input::Room(false));
            }
            Fault::Damage => {
                if let Some(block) = self.any_copy(node) {
                    if self.places[block as usize].contains(&node) {
                        self.checks.destroyed(self.now, node, block, &self.nodes[node].store[&block], "damage");
                    }
                    self.remove(node, block);
                }
            }
            Fault::Rot => {
                if let Some(block) = self.any_copy(node).filter(|block| self.places[*block as usize].remove(&node)) {
                    self.nodes[node].rotten.insert(block);
                    self.checks.rotted(self.now, node, block, &self.nodes[node].store[&block]);
                }
            }
            Fault::Join | Fault::Partition | Fault::Deletion | Fault::StandInDeath => {
                unreachable!("no single node is hit")
            }
        }
    }

    pub(super) fn end(&mut self, fault: Fault, node: usize) {
        match fault {
            Fault::Crash | Fault::LostWrites => self.begin(node),
            Fault::Misled => self.nodes[node].misled = false,
            Fault::Partition => self.apart.clear(),
            Fault::WrongSums => self.nodes[node].wrong_sums = false,
            Fault::Hoarder => self.nodes[node].hoards = false,
            // Its copies were destroyed when the disk lost them.
            Fault::Liar | Fault::WrongBytes => self.switch_off(node, Power::Dead),
            Fault::FullDisk => {
                self.nodes[node].quota_bytes = self.nodes[node].usual_quota_bytes;
                if self.nodes[node].is_up() {
                    let room = self.nodes[node].has_room();
                    self.input(node, Input::Room(room));
                }
            }
            // The scrub reads everything.
            Fault::Rot => {
                for block in self.nodes[node].rotten.clone() {
                    self.read(node, block);
                }
            }
            Fault::Death | Fault::StandInDeath | Fault::Join | Fault::Damage | Fault::Deletion => {}
        }
    }

    fn switch_off(&mut self, node: usize, power: Power) {
        if self.nodes[node].power == Power::Dead {
            return;
        }
        self.nodes[node].power = power;
        self.nodes[node].off_since = self.now;
        let start = self.nodes[node].start;
        let stale = STALE_MS.0 + self.random.next() % (STALE_MS.1 - STALE_MS.0);
        self.schedule(self.now + Duration::from_millis(stale), Event::Unlist { node, start });
        self.schedule(self.now + self.settings.config.grace, Event::Uncount { node, start });
    }

    /// All copies on a disk are lost for ever.
    fn destroy_all(&mut self, node: usize, what: &'static str) {
        if let Some(oracle) = &mut self.oracle {
            oracle.destroy(&self.nodes[node].position);
        }
        for block in std::mem::take(&mut self.nodes[node].rotten) {
            self.checks.noticed(self.now, node, block);
        }
        let blocks: Vec<_> = self.nodes[node].store.keys().copied().collect();
        for block in blocks {
            if self.places[block as usize].remove(&node) {
                self.checks.destroyed(self.now, node, block, &self.nodes[node].store[&block], what);
            }
        }
    }

    fn any_copy(&mut self, node: usize) -> Option<Block> {
        let store = &self.nodes[node].store;
        let chosen = self.random.below(store.len().max(1));
        store.keys().nth(chosen).copied()
    }

    /// The power goes, and what the disk had only said it had written is lost.
    fn lose_writes(&mut self, node: usize) {
        self.switch_off(node, Power::Down);
        self.nodes[node].forget_synced(self.now);
        for (_, block) in std::mem::take(&mut self.nodes[node].written) {
            if let Some(publications) = self.nodes[node].store.get(&block) {
                if self.places[block as usize].contains(&node) {
                    self.checks.destroyed(self.now, node, block, publications, "lost writes");
                }
                self.remove(node, block);
            }
        }
    }

    pub(super) fn any_up(&mut self) -> Option<usize> {
        let up: Vec<_> =
            (0..self.nodes.len()).filter(|node| self.nodes[*node].is_up() && !self.nodes[*node].lies()).collect();
        up.get(self.random.below(up.len().max(1))).copied()
    }

    /// Offers a thousand blocks, that nobody has, to each other node.
    fn hoard(&mut self, node: usize) {
        self.nodes[node].hoards = true;
        for to in (0..self.nodes.len()).filter(|to| *to != node) {
            let entries = (0..1_000).map(|_| (BlockId::from_bytes(self.random.bytes()), 1_000_000));
            let entries: Vec<_> = entries.collect();
            if self.nodes[to].is_up() && self.reaches(node, to) {
                let from = self.nodes[node].position;
                self.nodes[to].replicator.offered(self.now, from, &entries);
                self.drain(to);
            }
        }
    }

    /// A holder of a block that none of the R closest has.
    fn any_stand_in(&mut self) -> Option<usize> {
        let ring = self.ring(Node::is_up);
        let first = self.random.below(self.blocks.len().max(1));
        let mut stood_in_for = (first..self.blocks.len()).chain(0..first).filter(|block| {
            let closest = ring.closest(&self.blocks[*block].position, self.settings.config.replication);
            let has =
                |node: &Position| self.by_position.get(node).is_some_and(|node| self.places[*block].contains(node));
            self.checks.acknowledged_of(*block as Block).next().is_some() && !closest.iter().any(has)
        });
        let holders = &self.places[stood_in_for.next()?];
        holders.iter().copied().find(|node| self.nodes[*node].is_up())
    }

    /// A platform deletes a publication; one node learns of it.
    fn give_order(&mut self) {
        let publication = self.random.below(self.settings.publications().into()) as Publication;
        let Some(node) = self.any_up().filter(|_| self.deleted.insert(publication)) else { return };
        for block in self.settings.blocks_with(publication) {
            self.checks.deleted(block, publication);
        }
        self.delete(node, publication);
    }

    pub(super) fn plan_joins_and_outages(&mut self) {
        let begin = Time::from_millis(WARM_UP_MS);
        for (time, percent) in self.settings.joins_at_once.clone() {
            for _ in 0..(self.settings.nodes * percent as usize).div_ceil(100) {
                let late = Duration::from_millis(self.random.next() % JOIN_STORM_MS);
                self.schedule(begin + time + late, Event::Fault(Fault::Join));
            }
        }
        for outage in self.settings.outages.clone() {
            self.schedule(begin + outage.at, Event::Outage(outage));
        }
    }

    pub(super) fn switch_group_off(&mut self, outage: Outage) {
        let lives = |node: &usize| self.nodes[*node].power != Power::Dead;
        let belongs = |node: &usize| self.groups_of(*node).contains(&outage.group);
        let members: BTreeSet<usize> = (0..self.nodes.len()).filter(lives).filter(belongs).collect();
        let Some(length) = outage.length else { return self.kill(members) };
        self.dark.insert(outage.group, self.now + length);
        for node in members {
            if self.nodes[node].is_up() {
                self.switch_off(node, Power::Down);
                self.schedule(self.now + length, Event::Begin { node });
            }
        }
    }

    /// When the last group of a node that is off is back.
    pub(super) fn dark_until(&self, node: usize) -> Option<Time> {
        let groups = self.groups_of(node);
        let dark = self.dark.iter().filter(|(group, until)| groups.contains(group) && **until > self.now);
        dark.map(|(_, until)| *until).max()
    }

    /// Nodes that come later are in a region and somebody's, too.
    fn groups_of(&self, node: usize) -> [Group; 2] {
        // Where a node stands in the keyspace does not depend on its number.
        [Group::Region(self.network.region(node)), Group::Operator(node % self.settings.operators.max(1))]
    }

    pub(super) fn plan_sessions(&mut self) {
        let Some(Sessions::Trace(trace)) = self.settings.sessions.clone() else { return };
        let begin = Time::from_millis(WARM_UP_MS);
        let nodes = self.settings.nodes;
        for (node, turns) in trace.turns().filter(|(node, _)| *node < nodes) {
            for turn in turns.chunks(2) {
                self.schedule(begin + turn[0], Event::Leave { node, start: None });
                if let Some(back) = turn.get(1) {
                    self.schedule(begin + *back, Event::Begin { node });
                }
            }
        }
    }

    /// When a node that has come goes again, if sessions are drawn.
    pub(super) fn plan_leave(&mut self, node: usize) {
        if let Some(Sessions::Drawn { median, shape, .. }) = self.settings.sessions {
            let stays = shape.draw(&mut self.random, median);
            let from = self.now.max(Time::from_millis(WARM_UP_MS));
            let start = Some(self.nodes[node].start);
            self.schedule(from + stays, Event::Leave { node, start });
        }
    }

    /// A session that a crash has ended meanwhile does not end again.
    pub(super) fn leave(&mut self, node: usize, start: Option<u64>) {
        let it = &self.nodes[node];
        if !it.is_up() || start.is_some_and(|start| start != it.start) {
            return;
        }
        self.switch_off(node, Power::Down);
        if let Some(Sessions::Drawn { median_away, shape, .. }) = self.settings.sessions {
            let away = shape.draw(&mut self.random, median_away);
            self.schedule(self.now + away, Event::Begin { node });
        }
    }

    pub(super) fn uncount(&mut self, node: usize, start: u64) {
        let it = &self.nodes[node];
        if let Some(oracle) = self.oracle.as_mut().filter(|_| !it.is_up() && it.start == start) {
            oracle.leave(&it.position);
        }
    }

    pub(super) fn kill_at_once(&mut self, percent: u32) {
        let mut up: Vec<_> = (0..self.nodes.len()).filter(|node| self.nodes[*node].is_up()).collect();
        let count = (up.len() * percent as usize).div_ceil(100);
        let dead = (0..count).map(|_| up.swap_remove(self.random.below(up.len()))).collect();
        self.kill(dead);
    }

    /// At once and for ever.
    fn kill(&mut self, dead: BTreeSet<usize>) {
        self.counts.doomed += self.only_on(&dead);
        *self.counts.faults.entry(Fault::Death).or_default() += dead.len() as u64;
        dead.into_iter().for_each(|node| self.hit(Fault::Death, node));
    }

    /// Acknowledged blocks, for each publication, of which only these nodes have copies.
    fn only_on(&self, nodes: &BTreeSet<usize>) -> u64 {
        let of_block = |block: usize| {
            let refers = |node: &&usize, to| self.nodes[**node].store[&(block as Block)].contains(&to);
            let acknowledged = self.checks.acknowledged_of(block as Block);
            acknowledged
                .filter(|to| {
                    self.places[block].iter().filter(|node| refers(node, *to)).all(|node| nodes.contains(node))
                })
                .count()
        };
        (0..self.blocks.len()).map(of_block).sum::<usize>() as u64
    }

    /// What a careless node would do when another joins: drop at once what the new one is to have.
    fn drop_for(&mut self, new: usize) {
        let ring = self.ring(Node::is_up);
        let r = self.settings.config.replication;
        for block in 0..self.blocks.len() {
            let ranked = ring.closest(&self.blocks[block].position, r + 1);
            let displaced = ranked.get(r).and_then(|node| self.by_position.get(node).copied());
            if let Some(node) = displaced.filter(|_| ranked.contains(&self.nodes[new].position)) {
                self.drop_copy(node, block as Block);
            }
        }
    }
}
