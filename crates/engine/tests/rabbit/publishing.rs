//! What a node tells its customers while the broker comes and goes: an order that was confirmed is there, and one that was
//! certainly not queued is not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use yoink_core::Rejection;
use yoink_engine::{CallError, Confirmed, Engine, OrderInShort, OrderStatus, PurchaseRequest, Replayed};

use crate::common;
use crate::shop::{SHOE, Shop, request, until};

/// How long everything that waits may take to be decided.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// What a customer was told who asked once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Queued,
    Nothing,
    Unknown,
}

/// Buys once, without asking again.
async fn buy(engine: &Engine, request: PurchaseRequest) -> Told {
    match engine.purchase(request).await {
        Ok(_) => Told::Queued,
        Err(CallError::Unreachable | CallError::Overloaded) => Told::Nothing,
        Err(CallError::OutcomeUnknown) => Told::Unknown,
        Err(other) => panic!("{other:?}"),
    }
}

/// One shoe for each of so many customers, at once.
fn crowd(shop: &Shop, engine: &Engine, name: &str, count: usize) -> BTreeMap<String, Told> {
    let customers: Vec<String> = (0..count).map(|number| format!("{name}-{number}")).collect();
    let each = customers.iter().map(|customer| buy(engine, request(customer, "key")));
    let told = shop.run(join_all(each));
    customers.into_iter().zip(told).collect()
}

/// Customers come one after the other at several tills until `is_over`; each is another one.
async fn stream(engine: &Engine, name: &str, is_over: &AtomicBool) -> BTreeMap<String, Told> {
    let tills = (0..32).map(|till| async move {
        let mut told = BTreeMap::new();
        while !is_over.load(Ordering::Acquire) {
            let customer = format!("{name}-{till}-{}", told.len());
            let answer = buy(engine, common::buy(&customer, SHOE, 1, None)).await;
            told.insert(customer, answer);
            if answer != Told::Queued {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        told
    });
    join_all(tills).await.into_iter().flatten().collect()
}

/// Closes the tills, also if the test fails.
struct Open<'a>(&'a AtomicBool);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Waits until all is decided, and holds what was told against the ledger.
fn check(shop: &Shop, engine: &Engine, told: &BTreeMap<String, Told>) {
    let settled = shop.run(engine.wait_delivered(0, SETTLED_WITHIN));
    assert_eq!(settled, Confirmed::Yes, "{:?}", engine.rabbit_status());
    let rows = shop.sql("SELECT customer FROM orders");
    let in_ledger: Vec<String> = rows.into_iter().map(|mut row| row.remove(0).unwrap()).collect();
    let distinct: BTreeSet<&String> = in_ledger.iter().collect();
    assert_eq!(distinct.len(), in_ledger.len(), "somebody has two orders");
    for (customer, told) in told {
        let is_there = distinct.contains(customer);
        match told {
            Told::Queued => assert!(is_there, "{customer} was told that the request is queued"),
            Told::Nothing => assert!(!is_there, "{customer} was told that nothing happened"),
            Told::Unknown => {}
        }
    }
    let reconciliation = shop.reconcile(engine);
    assert!(reconciliation.ok && reconciliation.lost == 0, "{reconciliation:#?}");
}

fn wait_until_it_publishes(engine: &Engine) {
    until("the node publishes", || engine.rabbit_status().unwrap().is_publishing);
}

fn count(told: &BTreeMap<String, Told>, what: Told) -> usize {
    told.values().filter(|told| **told == what).count()
}

#[test]
fn the_broker_may_come_later() {
    let mut shop = Shop::start();
    shop.rabbit.terminate().unwrap();
    let engine = shop.open(|options| options.amqp = shop.rabbit.url());
    shop.stock(&engine, 10, None);
    let mut told = crowd(&shop, &engine, "early", 3);
    assert_eq!(count(&told, Told::Nothing), 3, "{told:?}");
    assert!(!engine.rabbit_status().unwrap().is_publishing);
    shop.rabbit.restart().unwrap();
    wait_until_it_publishes(&engine);
    told.extend(crowd(&shop, &engine, "later", 3));
    assert_eq!(count(&told, Told::Queued), 3, "{told:?}");
    check(&shop, &engine, &told);
}

#[test]
fn a_broker_that_is_killed_under_load_loses_nothing_that_was_promised() {
    let mut shop = Shop::start();
    let engine = shop.open(|options| options.amqp = shop.rabbit.url());
    shop.stock(&engine, 1_000_000, None);
    let mut all = BTreeMap::new();
    for round in 0..3 {
        let is_over = AtomicBool::new(false);
        let told = std::thread::scope(|scope| {
            let (engine, is_over) = (&engine, &is_over);
            let open = Open(is_over);
            let name = format!("round-{round}");
            let runtime = common::runtime();
            let buying = scope.spawn(move || runtime.block_on(stream(engine, &name, is_over)));
            let before = engine.figures().accepted;
            until("the node sells", || engine.figures().accepted > before + 500);
            shop.rabbit.kill();
            until("the node notices", || !engine.rabbit_status().unwrap().is_publishing);
            shop.rabbit.restart().unwrap();
            let before = engine.figures().accepted;
            until("the node sells again", || engine.figures().accepted > before + 500);
            drop(open);
            buying.join().unwrap()
        });
        assert!(count(&told, Told::Nothing) > 0, "somebody came while the broker was down");
        all.extend(told);
    }
    check(&shop, &engine, &all);
}

#[test]
fn a_queue_that_is_deleted_under_load_is_made_anew_and_what_was_in_it_is_queued_again() {
    let shop = Shop::start();
    let engine = shop.open(|options| options.amqp = shop.rabbit.url());
    shop.stock(&engine, 1_000_000, None);
    shop.run(engine.delivery().pause()).unwrap();
    let is_over = AtomicBool::new(false);
    let told = std::thread::scope(|scope| {
        let (engine, is_over) = (&engine, &is_over);
        let open = Open(is_over);
        let runtime = common::runtime();
        let buying = scope.spawn(move || runtime.block_on(stream(engine, "buyer", is_over)));
        until("much is queued", || engine.figures().accepted > 3_000);
        shop.rabbit.delete_queue(&shop.queue()).unwrap();
        let before = engine.figures().accepted;
        until("the node sells again", || engine.figures().accepted > before + 500);
        drop(open);
        buying.join().unwrap()
    });
    shop.run(engine.delivery().resume()).unwrap();
    check(&shop, &engine, &told);
    assert!(engine.rabbit_status().unwrap().processed.requeued > 0);
}

#[test]
fn a_broker_without_memory_takes_nothing_and_says_so() {
    let mut shop = Shop::start();
    let engine = shop.open(|options| options.amqp = shop.rabbit.url());
    shop.stock(&engine, 1_000, None);
    wait_until_it_publishes(&engine);
    let mut told = crowd(&shop, &engine, "before", 10);
    assert_eq!(count(&told, Told::Queued), 10);
    shop.rabbit.set_memory_alarm(true).unwrap();
    // It tells those who publish.
    let mut number = 0;
    until("the node knows", || {
        number += 1;
        told.extend(crowd(&shop, &engine, &format!("during-{number}"), 1));
        !engine.rabbit_status().unwrap().is_publishing
    });
    let refused = crowd(&shop, &engine, "after", 10);
    assert_eq!(count(&refused, Told::Nothing), 10, "{refused:?}");
    told.extend(refused);
    shop.rabbit.set_memory_alarm(false).unwrap();
    wait_until_it_publishes(&engine);
    let later = crowd(&shop, &engine, "later", 10);
    assert_eq!(count(&later, Told::Queued), 10, "{later:?}");
    told.extend(later);
    check(&shop, &engine, &told);
}

#[test]
fn a_full_queue_takes_no_more_and_nothing_is_dropped() {
    let shop = Shop::start();
    let options = |options: &mut yoink_engine::RabbitOptions| {
        (options.amqp, options.queue_max, options.workers) = (shop.rabbit.url(), 5, 0);
    };
    let engine = shop.open(options);
    shop.stock(&engine, 1_000, None);
    wait_until_it_publishes(&engine);
    let mut told = BTreeMap::new();
    for number in 0..40 {
        told.extend(crowd(&shop, &engine, &format!("buyer-{number}"), 1));
    }
    let (queued, refused) = (count(&told, Told::Queued), count(&told, Told::Nothing));
    assert!(queued >= 5 && refused >= 20 && queued + refused == 40, "{told:?}");
    let _worker = shop.open(|options| options.amqp = shop.rabbit.url());
    check(&shop, &engine, &told);
}

#[test]
fn the_same_request_sixty_four_times_at_once_is_one_order() {
    let shop = Shop::start();
    let engine = shop.open(|options| (options.amqp, options.workers) = (shop.rabbit.url(), 0));
    shop.stock(&engine, 1_000, None);
    wait_until_it_publishes(&engine);
    let bought = shop.run(join_all((0..64).map(|_| engine.purchase(request("ann", "key")))));
    let bought: Vec<_> = bought.into_iter().map(Result::unwrap).collect();
    let orders: BTreeSet<_> = bought.iter().map(|purchased| purchased.order).collect();
    assert_eq!(orders.len(), 1);
    assert_eq!(bought.iter().filter(|purchased| purchased.replayed == Replayed::No).count(), 1);
    assert_eq!(shop.rabbit.queue_messages(&shop.queue()).unwrap(), (1, 0));
    // This node knows what it queued; another one knows only that the id may be one of this shop's.
    let order = bought[0].order;
    let view = shop.run(engine.order(order)).unwrap().unwrap();
    assert_eq!((view.status, view.customer.as_str(), view.quantity), (OrderStatus::Queued, "ann", 1));
    let other = shop.open(|options| options.amqp = shop.rabbit.url());
    until("it is decided", || shop.run(other.order(order)).unwrap().is_some());
    let again = shop.run(other.purchase(request("ann", "key"))).unwrap();
    assert_eq!((again.order, again.replayed), (order, Replayed::Yes));
    let in_short = |id| shop.run(other.order_in_short(id)).unwrap();
    assert_eq!(in_short(order), Some(OrderInShort::Queued), "as far as its id can tell");
    assert_eq!(in_short(yoink_core::OrderId([7; 16])), None);
    let twice = shop.run(engine.purchase(common::buy("ann", SHOE, 2, Some("key"))));
    let original = Some(order);
    assert_eq!(twice, Err(Rejection::KeyReused { original }.into()));
}

#[test]
fn a_node_that_keeps_too_many_queues_no_more_and_says_so() {
    let shop = Shop::start();
    let edge = shop.open(|options| (options.workers, options.unseen_max) = (0, 5));
    shop.stock(&edge, 1_000, None);
    wait_until_it_publishes(&edge);
    let buy = |number: usize| shop.run(edge.purchase(request(&format!("buyer-{number}"), "key")));
    let queued: Vec<_> = (0..5).map(|number| buy(number).unwrap()).collect();
    for number in 5..40 {
        assert_eq!(buy(number), Err(CallError::Overloaded));
    }
    assert_eq!(edge.rabbit_status().unwrap().unseen, 5);
    // Who is in the queue already is told so.
    let again = buy(3).unwrap();
    assert_eq!((again.order, again.replayed), (queued[3].order, Replayed::Yes));

    let _worker = shop.open(|_| {});
    until("all of it was seen", || edge.rabbit_status().unwrap().unseen == 0);
    assert_eq!(shop.count("SELECT count(*) FROM orders"), 5, "nothing else had been queued");
    let later = crowd(&shop, &edge, "later", 5);
    assert_eq!(count(&later, Told::Queued), 5, "{later:?}");
    check(&shop, &edge, &later);
}

#[test]
fn who_was_told_that_nobody_knows_is_not_told_no_by_a_hint() {
    let mut shop = Shop::start();
    let edge = shop.open(|options| options.workers = 0);
    shop.stock(&edge, 1, None);
    wait_until_it_publishes(&edge);
    // The broker takes what is sent, and whatever it says to it never arrives.
    shop.rabbit.pause().unwrap();
    let buy = |customer: &str, quantity: u32| {
        shop.run(edge.purchase(common::buy(customer, SHOE, quantity, Some("key"))))
    };
    assert_eq!(buy("ann", 1), Err(CallError::OutcomeUnknown));
    shop.rabbit_edge.cut_all();
    // While nothing can be queued, she is not told that nothing happened either.
    assert_eq!(buy("ann", 1), Err(CallError::OutcomeUnknown));
    shop.rabbit.resume();
    wait_until_it_publishes(&edge);

    shop.run(edge.adjust_stock(common::restock(SHOE, -1, "none"))).unwrap();
    let sold_out = CallError::from(Rejection::SoldOut { available: 0 });
    assert_eq!(buy("bob", 1), Err(sold_out.clone()), "he asked for the first time");
    shop.run(edge.pause(common::id(SHOE))).unwrap();
    assert_eq!(buy("bob", 1), Err(Rejection::SalePaused.into()));
    assert_eq!(buy("ann", 1), Err(CallError::OutcomeUnknown), "hers may have been queued before");
    shop.run(edge.resume(common::id(SHOE))).unwrap();
    let queued = buy("ann", 1).unwrap();
    assert_eq!(queued.status, OrderStatus::Queued, "the decision tells");

    shop.run(edge.adjust_stock(common::restock(SHOE, 1, "one"))).unwrap();
    let _worker = shop.open(|_| {});
    assert_eq!(shop.run(edge.wait_confirmed(&queued, SETTLED_WITHIN)), Confirmed::Yes);
    until("the hint is there", || edge.refuse_early(&common::buy("bob", SHOE, 1, None)).is_some());
    assert_eq!(buy("bob", 1), Err(sold_out));
    assert_eq!(buy("ann", 1).map(|again| again.order), Ok(queued.order));
    let original = Some(queued.order);
    assert_eq!(buy("ann", 2), Err(Rejection::KeyReused { original }.into()));
    check(&shop, &edge, &BTreeMap::from([("ann".to_owned(), Told::Queued)]));
}

/// An Erlang expression that binds `Q` to the process of the queue of requests.
fn queue_process(shop: &Shop) -> String {
    let name = shop.queue();
    format!(
        "{{ok, Found}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"{name}\">>)),
         Q = amqqueue:get_pid(Found)"
    )
}

/// Channels with an unconfirmed message stand still, and what the queue confirms waits before them. One that waits for the
/// queue itself says nothing.
const HALT_CHANNELS: &str = "
    Self = self(),
    Unconfirmed = fun(C) ->
        Asked = make_ref(),
        spawn(fun() -> Self ! {Asked, rabbit_channel:info(C, [messages_unconfirmed])} end),
        receive {Asked, [{_, N}]} -> N after 100 -> 0 end
    end,
    Busy = [C || C <- rabbit_channel:list(), Unconfirmed(C) > 0],
    [ok = sys:suspend(C) || C <- Busy],
    sys:resume(Q),
    timer:sleep(50),
    Waits = fun(C) -> case process_info(C, message_queue_len) of {_, N} -> N; _ -> 0 end end,
    persistent_term:put(halted, [{C, Waits(C)} || C <- Busy])";
/// They go on once one of them has got something more, or after 100 ms.
const RESUME_CHANNELS: &str = "
    Halted = persistent_term:get(halted),
    Waits = fun(C) -> case process_info(C, message_queue_len) of {_, N} -> N; _ -> 0 end end,
    Wait = fun W(0) -> ok;
               W(N) -> case [C || {C, Before} <- Halted, Waits(C) > Before] of
                   [] -> timer:sleep(5), W(N - 1);
                   _ -> ok
               end
           end,
    Wait(20),
    [catch sys:resume(C) || {C, _} <- Halted],
    ok";

#[test]
fn who_is_told_that_nothing_happened_is_not_taken_for_somebody_whose_request_was_confirmed_at_the_same_moment()
 {
    let shop = Shop::start();
    let engine = shop.open(|options| (options.amqp, options.workers) = (shop.rabbit.url(), 0));
    shop.stock(&engine, 1_000, None);
    let mut told = BTreeMap::new();
    for round in 0..3 {
        wait_until_it_publishes(&engine);
        let queue = queue_process(&shop);
        shop.rabbit.eval(&format!("{queue}, sys:suspend(Q)")).unwrap();
        std::thread::scope(|scope| {
            let asking = |name: String| {
                let engine = &engine;
                scope.spawn(move || {
                    let answer = common::runtime().block_on(buy(engine, request(&name, "key")));
                    (name, answer)
                })
            };
            let mut buyers = Vec::new();
            for number in 1..=3 {
                buyers.push(asking(format!("routed-{round}-{number}")));
                until("it is on its way", || engine.figures().inbox_tickets == number);
            }
            shop.unbind("requests", "orders");
            shop.rabbit.eval(&format!("{queue}, {HALT_CHANNELS}")).unwrap();
            // It comes back, and is confirmed together with those before it.
            let returned = asking(format!("returned-{round}"));
            until("it is on its way", || returned.is_finished() || engine.figures().inbox_tickets >= 4);
            shop.rabbit.eval(RESUME_CHANNELS).unwrap();
            told.extend(buyers.into_iter().chain([returned]).map(|buyer| buyer.join().unwrap()));
        });
    }
    let _worker = shop.open(|options| options.amqp = shop.rabbit.url());
    check(&shop, &engine, &told);
}

#[test]
fn a_turn_that_nobody_gives_back_keeps_nobody_from_making_the_queue() {
    let shop = Shop::start();
    let edge = shop.open_edge();
    shop.stock(&edge, 100, None);
    shop.wait_publishing(&edge);
    let mut session = shop.session();
    // As one does who makes queues.
    session.query("SELECT pg_advisory_lock(7096336)").unwrap();
    shop.rabbit.delete_queue(&shop.queue()).unwrap();
    assert_eq!(shop.crowd(&[&edge], "later", 3).len(), 3);
    drop(session);
}
