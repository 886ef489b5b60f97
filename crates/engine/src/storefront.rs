//! What everybody may see without asking the writer: products, stock, and whether a customer ever bought.
//!
//! Sold out is the common answer of a flash sale. It is given from here, without an fsync and without a trip through
//! the writer, but only where it certainly is what the writer would say: a customer who was ever accepted may be due a
//! replay or a `limit-reached`, so theirs always goes to the writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use xxhash_rust::xxh3::xxh3_64;
use yoink_core::{CustomerId, Figures, Inventory, NewProduct, Product, ProductId, Rejection, Timestamp};

use crate::views::{ProductView, PurchaseRequest};

/// One product, as last committed.
#[derive(Debug)]
pub struct Shelf {
    id: ProductId,
    details: ArcSwap<NewProduct>,
    is_paused: AtomicBool,
    stocked: AtomicU64,
    available: AtomicU64,
    held: AtomicU64,
    sold: AtomicU64,
    withheld: AtomicU64,
}

impl Shelf {
    fn new(product: &Product) -> Self {
        Self::of(product.id, product.details.clone(), product.paused, product.figures())
    }

    fn of(id: ProductId, details: NewProduct, is_paused: bool, figures: Figures) -> Self {
        Self {
            id,
            details: ArcSwap::from_pointee(details),
            is_paused: AtomicBool::new(is_paused),
            stocked: AtomicU64::new(figures.stocked),
            available: AtomicU64::new(figures.available),
            held: AtomicU64::new(figures.held),
            sold: AtomicU64::new(figures.sold),
            withheld: AtomicU64::new(figures.withheld),
        }
    }

    /// Its id.
    pub fn id(&self) -> ProductId {
        self.id
    }

    /// Units a buyer can have now.
    pub fn available(&self) -> u64 {
        self.available.load(Ordering::Acquire)
    }

    /// Whether an operator paused the sale.
    pub fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Acquire)
    }

    /// Its units. Each figure is one that was committed, but two of them may be from neighbouring commits.
    pub fn figures(&self) -> Figures {
        Figures {
            stocked: self.stocked.load(Ordering::Acquire),
            available: self.available.load(Ordering::Acquire),
            held: self.held.load(Ordering::Acquire),
            sold: self.sold.load(Ordering::Acquire),
            withheld: self.withheld.load(Ordering::Acquire),
        }
    }

    /// Its units, read until two readings agree, so that they are of one commit.
    pub fn settled_figures(&self) -> Figures {
        let mut before = self.figures();
        for _ in 0..1_000 {
            let figures = self.figures();
            if figures == before && figures.conservation_error_units() == 0 {
                return figures;
            }
            before = figures;
            std::hint::spin_loop();
        }
        before
    }

    /// Name, price, window and limits.
    pub fn details(&self) -> Arc<NewProduct> {
        self.details.load_full()
    }

    /// A copy of everything.
    pub fn view(&self) -> ProductView {
        ProductView {
            id: self.id,
            details: NewProduct::clone(&self.details()),
            paused: self.is_paused(),
            figures: self.figures(),
        }
    }

    fn publish_figures(&self, figures: Figures) {
        self.stocked.store(figures.stocked, Ordering::Release);
        self.held.store(figures.held, Ordering::Release);
        self.sold.store(figures.sold, Ordering::Release);
        self.withheld.store(figures.withheld, Ordering::Release);
        // IMPORTANT: last. Who sees these units gone must see the buyers they went to (see `refuse_early`).
        self.available.store(figures.available, Ordering::Release);
    }
}

/// The rejection that follows from how a product is listed, whatever is left of it.
pub(crate) fn refuse_as_listed(
    details: &NewProduct,
    is_paused: bool,
    now: Timestamp,
    quantity: u32,
) -> Option<Rejection> {
    if quantity > details.max_per_order {
        return Some(Rejection::QuantityAboveMax { max_per_order: details.max_per_order });
    }
    if let Some(starts_at) = details.window.starts_at.filter(|starts_at| now < *starts_at) {
        return Some(Rejection::SaleNotStarted { starts_at });
    }
    if let Some(ends_at) = details.window.ends_at.filter(|ends_at| now >= *ends_at) {
        return Some(Rejection::SaleEnded { ends_at });
    }
    is_paused.then_some(Rejection::SalePaused)
}

/// All products, as last committed.
#[derive(Debug)]
pub struct Storefront {
    shelves: ArcSwap<Shelves>,
    buyers: Buyers,
}

#[derive(Debug, Default)]
struct Shelves {
    /// In order of creation.
    listed: Vec<Arc<Shelf>>,
    by_id: HashMap<ProductId, Arc<Shelf>>,
}

impl Storefront {
    pub(crate) fn new(inventory: &Inventory) -> Self {
        let storefront = Self { shelves: ArcSwap::default(), buyers: Buyers::new() };
        for customer in inventory.customers() {
            storefront.buyers.add(customer);
        }
        storefront.publish_products(inventory);
        storefront
    }

    /// Nothing yet; for an engine whose inventory is elsewhere.
    pub(crate) fn empty() -> Self {
        Self { shelves: ArcSwap::default(), buyers: Buyers::new() }
    }

    /// Every product, in order of creation.
    pub fn products(&self) -> Vec<ProductView> {
        self.shelves.load().listed.iter().map(|shelf| shelf.view()).collect()
    }

    /// The shelves themselves, in order of creation.
    pub fn shelves(&self) -> Vec<Arc<Shelf>> {
        self.shelves.load().listed.clone()
    }

    /// One product.
    pub fn product(&self, id: &ProductId) -> Option<ProductView> {
        self.shelves.load().by_id.get(id).map(|shelf| shelf.view())
    }

    /// One product's shelf.
    pub fn shelf(&self, id: &ProductId) -> Option<Arc<Shelf>> {
        self.shelves.load().by_id.get(id).cloned()
    }

    /// Whether this customer may ever have had an order accepted. "No" is certain.
    pub fn may_have_bought(&self, customer: &CustomerId) -> bool {
        self.buyers.may_have(customer.as_str())
    }

    /// The rejection that the writer would certainly give, if it is certain; `None` means: ask the writer.
    pub fn refuse_early(&self, now: Timestamp, request: &PurchaseRequest) -> Option<Rejection> {
        let shelves = self.shelves.load();
        let Some(shelf) = shelves.by_id.get(&request.product) else {
            return Some(Rejection::ProductNotFound);
        };
        // IMPORTANT: stock before buyers. Publishing goes the other way round, so whoever sees that the last unit is
        // gone also sees everybody it could have gone to, and no winner is told "sold out".
        let available = shelf.available();
        if self.buyers.may_have(request.customer.as_str()) {
            return None;
        }
        let details = shelf.details.load();
        if let Some(rejection) = refuse_as_listed(&details, shelf.is_paused(), now, request.quantity) {
            return Some(rejection);
        }
        match details.limit_per_customer {
            Some(limit) if request.quantity > limit => {
                Some(Rejection::LimitReached { limit, used: 0, existing: Vec::new() })
            }
            _ => (available == 0).then_some(Rejection::SoldOut { available }),
        }
    }

    /// A customer's order was accepted. To be called before the stock it took is published.
    pub(crate) fn publish_buyer(&self, customer: &str) {
        self.buyers.add(customer);
    }

    /// The figures of a product changed.
    pub(crate) fn publish_figures(&self, product: &Product) {
        if let Some(shelf) = self.shelves.load().by_id.get(&product.id) {
            shelf.publish_figures(product.figures());
        }
    }

    /// All products as they are, for an engine whose inventory is elsewhere.
    pub(crate) fn publish_views(&self, views: Vec<ProductView>) {
        let before = self.shelves.load();
        let listed: Vec<Arc<Shelf>> = views
            .into_iter()
            .map(|view| match before.by_id.get(&view.id) {
                None => Arc::new(Shelf::of(view.id, view.details, view.paused, view.figures)),
                Some(shelf) => {
                    if **shelf.details.load() != view.details {
                        shelf.details.store(Arc::new(view.details));
                    }
                    shelf.is_paused.store(view.paused, Ordering::Release);
                    shelf.publish_figures(view.figures);
                    Arc::clone(shelf)
                }
            })
            .collect();
        if listed.len() != before.listed.len() {
            let by_id = listed.iter().map(|shelf| (shelf.id, Arc::clone(shelf))).collect();
            self.shelves.store(Arc::new(Shelves { listed, by_id }));
        }
    }

    /// Products came, or what is said about them changed.
    pub(crate) fn publish_products(&self, inventory: &Inventory) {
        let before = self.shelves.load();
        let listed: Vec<Arc<Shelf>> = inventory
            .products()
            .map(|product| match before.by_id.get(&product.id) {
                None => Arc::new(Shelf::new(product)),
                Some(shelf) => {
                    if **shelf.details.load() != product.details {
                        shelf.details.store(Arc::new(product.details.clone()));
                    }
                    shelf.is_paused.store(product.paused, Ordering::Release);
                    shelf.publish_figures(product.figures());
                    Arc::clone(shelf)
                }
            })
            .collect();
        let by_id = listed.iter().map(|shelf| (shelf.id, Arc::clone(shelf))).collect();
        self.shelves.store(Arc::new(Shelves { listed, by_id }));
    }
}

/// Who may ever have had an order accepted: a Bloom filter (B. H. Bloom, 1970) with two probes.
///
/// "No" is certain. A wrong "maybe" only costs a trip through the writer: with a million buyers about one in a
/// thousand strangers takes it.
#[derive(Debug)]
struct Buyers {
    words: Vec<AtomicU64>,
}

impl Buyers {
    /// 2^26 bits: 8 MiB.
    const WORDS: usize = 1 << 20;

    fn new() -> Self {
        Self { words: std::iter::repeat_with(AtomicU64::default).take(Self::WORDS).collect() }
    }

    /// The two bits of a customer, as (word, mask).
    fn probes(customer: &str) -> [(usize, u64); 2] {
        let hash = xxh3_64(customer.as_bytes());
        [hash, hash >> 32].map(|part| {
            let bit = part as usize & (Self::WORDS * 64 - 1);
            (bit >> 6, 1 << (bit & 63))
        })
    }

    fn add(&self, customer: &str) {
        for (word, mask) in Self::probes(customer) {
            if let Some(word) = self.words.get(word) {
                // Once set, a bit stays. Looking first spares a locked write to memory that all cores read: what is
                // committed was nearly always published before, when it was asked for.
                if word.load(Ordering::Acquire) & mask == 0 {
                    word.fetch_or(mask, Ordering::AcqRel);
                }
            }
        }
    }

    fn may_have(&self, customer: &str) -> bool {
        Self::probes(customer).into_iter().all(|(word, mask)| {
            self.words.get(word).is_some_and(|word| word.load(Ordering::Acquire) & mask != 0)
        })
    }
}
