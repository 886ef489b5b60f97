//! Customers by name, numbered in order of their first accepted order.

use core::hash::BuildHasher;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::NONE;
use crate::texts::Texts;

#[derive(Debug, Default)]
pub(super) struct Customers {
    names: Texts,
    /// By customer number: the position of the newest order; [`NONE`] before the first.
    last_orders: Vec<u32>,
    by_name: HashTable<u32>,
}

impl Customers {
    pub(super) fn find(&self, hasher: &DefaultHashBuilder, name: &str) -> Option<u32> {
        self.by_name.find(hasher.hash_one(name), |number| self.names.get(*number) == name).copied()
    }

    pub(super) fn find_or_add(&mut self, hasher: &DefaultHashBuilder, name: &str) -> u32 {
        if let Some(number) = self.find(hasher, name) {
            return number;
        }
        let number = self.names.push(name);
        self.last_orders.push(NONE);
        let names = &self.names;
        self.by_name
            .insert_unique(hasher.hash_one(name), number, |number| hasher.hash_one(names.get(*number)));
        number
    }

    pub(super) fn reserve(&mut self, hasher: &DefaultHashBuilder, additional: usize) {
        let names = &self.names;
        self.by_name.reserve(additional, |number| hasher.hash_one(names.get(*number)));
        self.last_orders.reserve(additional);
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
