//! Customers by name, numbered in order of their first accepted order.

use core::hash::BuildHasher;
use hashbrown::DefaultHashBuilder;

use super::NONE;
use crate::chunked::Chunked;
use crate::index::Index;
use crate::texts::Texts;

#[derive(Debug, Default)]
pub(super) struct Customers {
    names: Texts,
    /// By customer number: the position of the newest order; [`NONE`] before the first.
    last_orders: Chunked<u32>,
    by_name: Index,
}

impl Customers {
    pub(super) fn find(&self, hasher: &DefaultHashBuilder, name: &str) -> Option<u32> {
        self.find_hashed(hasher.hash_one(name), name)
    }

    fn find_hashed(&self, hash: u64, name: &str) -> Option<u32> {
        self.by_name.find(hash, |number| self.names.get(number) == name)
    }

    pub(super) fn find_or_add(&mut self, hasher: &DefaultHashBuilder, name: &str) -> u32 {
        let hash = hasher.hash_one(name);
        if let Some(number) = self.find_hashed(hash, name) {
            return number;
        }
        let number = self.names.push(name);
        self.last_orders.push(NONE);
        self.by_name.insert(hash, number);
        number
    }

    pub(super) fn reserve(&mut self, additional: usize) {
        self.by_name.reserve(additional);
    }

    pub(super) fn name(&self, number: u32) -> &str {
        self.names.get(number)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        (0..self.names.len()).filter_map(|index| Some(self.names.get(u32::try_from(index).ok()?)))
    }

    pub(super) fn last_order(&self, number: u32) -> Option<u32> {
        self.last_orders.get(number as usize).copied().filter(|order| *order != NONE)
    }

    pub(super) fn set_last_order(&mut self, number: u32, order: u32) {
        if let Some(last) = self.last_orders.get_mut(number as usize) {
            *last = order;
        }
    }
}
