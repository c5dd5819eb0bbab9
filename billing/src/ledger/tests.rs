use proptest::prelude::*;

use super::*;
use crate::testing::World;

fn account(index: usize, currency: Currency) -> Account {
    match index % 4 {
        // A receivable would need a document: that is checked too.
        0 => Account::cash("manual", currency),
        1 => Account::revenue_base(currency),
        2 => Account::revenue_overage(currency),
        _ => Account::tax(currency),
    }
}

fn transaction(key: &str, postings: &[(usize, i64, Currency)]) -> NewTransaction {
    NewTransaction {
        idempotency_key: key.to_owned(),
        customer: None,
        invoice: None,
        payment: None,
        refund: None,
        description: "test".to_owned(),
        posted_at_ms: 0,
        postings: postings
            .iter()
            .map(|&(index, minor, currency)| Posting {
                account: account(index, currency),
                amount: Money::new(minor, currency),
            })
            .collect(),
    }
}

async fn posted(world: &World, new: &NewTransaction) -> Result<TransactionId, LedgerError> {
    let mut connection = world.database.begin_write().await.unwrap();
    let result = post(&mut connection, new).await;
    match &result {
        Ok(_) => connection.commit().await.unwrap(),
        Err(_) => connection.rollback().await.unwrap(),
    }
    result
}

#[tokio::test]
async fn b1_what_does_not_balance_is_refused() {
    let world = World::new().await;
    world.customer("USD", "UTC", "0").await;
    let (usd, eur) = (Currency::USD, Currency::EUR);
    for (postings, words) in [
        (
            vec![(0, 100, usd), (1, -99, usd)],
            "B1: the postings of k sum to USD 0.01, not to zero",
        ),
        (vec![(0, 100, usd), (1, -100, eur)], "not to zero"),
        (vec![], "0 postings"),
        (
            vec![(0, i64::MAX, usd), (0, 1, usd)],
            "k posts USD 92,233,720,368,547,758.07: USD 10,000,000,000,000.00 is the most in one posting",
        ),
        (
            vec![(0, MAX_POSTING_MINOR + 1, usd), (1, -MAX_POSTING_MINOR - 1, usd)],
            "is the most in one posting",
        ),
    ] {
        let error = posted(&world, &transaction("k", &postings))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error:?} does not say {words:?}");
    }
    let mut mixed = transaction("k", &[(0, 100, usd), (1, -100, usd)]);
    mixed.postings[0].account = account(0, eur);
    let error = posted(&world, &mixed).await.unwrap_err();
    assert!(matches!(error, LedgerError::AccountCurrency { .. }), "{error}");
    assert_eq!(balances(world.database.pool()).await.unwrap(), []);
}

#[tokio::test]
async fn posting_again_changes_nothing_and_a_key_stands_for_one_cause() {
    let world = World::new().await;
    world.customer("USD", "UTC", "0").await;
    let sale = transaction(
        "invoice:inv_1",
        &[
            (0, 119, Currency::USD),
            (1, -100, Currency::USD),
            (3, -19, Currency::USD),
        ],
    );
    let first = posted(&world, &sale).await.unwrap();
    assert_eq!(posted(&world, &sale).await.unwrap(), first);
    let other = transaction("invoice:inv_1", &[(0, 1, Currency::USD), (1, -1, Currency::USD)]);
    let error = posted(&world, &other).await.unwrap_err();
    assert!(matches!(error, LedgerError::KeyReused { .. }), "{error}");

    let owed = balance(world.database.pool(), &account(0, Currency::USD))
        .await
        .unwrap();
    assert_eq!(owed, Money::new(119, Currency::USD));
    let trials = trial_balance(world.database.pool()).await.unwrap();
    assert_eq!(trials.len(), 1);
    assert!(trials[0].is_balanced());
    assert_eq!(trials[0].debits, Money::new(119, Currency::USD));
    let never_used = balance(world.database.pool(), &account(0, Currency::EUR))
        .await
        .unwrap();
    assert_eq!(never_used, Money::zero(Currency::EUR));
}

#[tokio::test]
async fn many_are_posted_as_each_alone_and_a_cause_twice_among_them_once() {
    let world = World::new().await;
    world.customer("USD", "UTC", "0").await;
    let sale = |number: i64| {
        transaction(
            &format!("sale:{number}"),
            &[(0, number, Currency::USD), (1, -number, Currency::USD)],
        )
    };
    let first = posted(&world, &sale(3)).await.unwrap();
    let many: Vec<NewTransaction> = (1..=150).chain([7]).map(sale).collect();
    let mut connection = world.database.begin_write().await.unwrap();
    let ids = post_all(&mut connection, &many).await.unwrap();
    assert_eq!(ids[2], first, "posted before");
    assert_eq!(ids[150], ids[6], "twice in one call");
    let mut other = sale(9);
    other.postings = sale(10).postings;
    let error = post_all(&mut connection, &[sale(200), sale(200), other])
        .await
        .unwrap_err();
    assert!(matches!(error, LedgerError::KeyReused { key } if key == "sale:9"));
    connection.commit().await.unwrap();
    let report = check(&world.database).await.unwrap();
    assert_eq!((report.transactions, report.postings), (151, 302));
    assert!(report.is_clean(), "{:?}", report.violations);
    let cash = balance(world.database.pool(), &account(0, Currency::USD))
        .await
        .unwrap();
    assert_eq!(cash.minor, (1..=150).sum::<i64>() + 200);
}

#[tokio::test]
async fn b1_the_check_finds_books_that_were_changed_by_hand() {
    let world = World::new().await;
    world.customer("USD", "UTC", "0").await;
    posted(
        &world,
        &transaction("sale", &[(0, 100, Currency::USD), (1, -100, Currency::USD)]),
    )
    .await
    .unwrap();
    let report = check(&world.database).await.unwrap();
    assert_eq!((report.transactions, report.postings, report.invoices), (1, 2, 0));
    assert!(report.is_clean(), "{report:?}");

    sqlx::query("UPDATE ledger_postings SET amount_minor = 90 WHERE position = 1")
        .execute(world.database.pool())
        .await
        .unwrap();
    let report = check(&world.database).await.unwrap();
    assert_eq!(report.violations.len(), 1, "{report:?}");
    assert_eq!(report.violations[0].invariant, "B1");
    assert_eq!(report.violations[0].what, "sale: -10 minor units instead of 0");
    assert!(!trial_balance(world.database.pool()).await.unwrap()[0].is_balanced());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Random histories, valid and not, with repeats: whatever was accepted balances, and balances are what a plain sum
    /// of the accepted postings says.
    #[test]
    fn b1_holds_after_any_history(history in proptest::collection::vec(
        (0u8..12, proptest::collection::vec((0usize..4, -1000i64..1000, any::<bool>()), 1..5), any::<bool>()),
        1..25,
    )) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            world.customer("USD", "UTC", "0").await;
            let mut model: BTreeMap<String, i64> = BTreeMap::new();
            let mut keys: BTreeMap<u8, Vec<(usize, i64, Currency)>> = BTreeMap::new();
            for (key, postings, balance_it) in history {
                let mut postings: Vec<_> = postings
                    .into_iter()
                    .map(|(index, minor, euro)| (index, minor, if euro { Currency::EUR } else { Currency::USD }))
                    .collect();
                for currency in [Currency::USD, Currency::EUR] {
                    let sum: i64 = postings.iter().filter(|posting| posting.2 == currency).map(|posting| posting.1).sum();
                    if balance_it && sum != 0 {
                        postings.push((1, -sum, currency));
                    }
                }
                let balanced = [Currency::USD, Currency::EUR].iter().all(|currency| {
                    postings.iter().filter(|posting| posting.2 == *currency).map(|posting| posting.1).sum::<i64>() == 0
                });
                let result = posted(&world, &transaction(&format!("cause:{key}"), &postings)).await;
                let fresh = !keys.contains_key(&key);
                let repeat = keys.get(&key) == Some(&postings);
                assert_eq!(result.is_ok(), balanced && (fresh || repeat), "{result:?}");
                if result.is_ok() && fresh {
                    for (index, minor, currency) in &postings {
                        *model.entry(account(*index, *currency).name).or_default() += minor;
                    }
                    keys.insert(key, postings);
                }
                for trial in trial_balance(world.database.pool()).await.unwrap() {
                    assert!(trial.is_balanced(), "{trial:?}");
                }
            }
            let stored: BTreeMap<String, i64> = balances(world.database.pool())
                .await
                .unwrap()
                .into_iter()
                .map(|balance| (balance.account.name, balance.balance.minor))
                .collect();
            assert_eq!(stored, model);
            assert!(check(&world.database).await.unwrap().is_clean());
        });
    }
}
