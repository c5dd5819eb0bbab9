use activity::audit::{self, AuditFilter};
use axum::http::StatusCode;

use crate::auth::Role;
use crate::testing::world::World;

#[tokio::test]
async fn a_network_engineer_sees_attacks_and_flags_none() {
    let world = World::new().await;
    world.portal.user("net", Role::Network, None).await;
    let mut network = world.portal.signed_in("net").await;
    let page = format!("/ops/services/{}", world.percentile);
    let shown = network.get(&page).await.body;
    assert!(
        shown.contains("Attack traffic") && !shown.contains("Flag an attack"),
        "{shown}"
    );
    let attack = [
        ("from", "2025-06-01T04:00"),
        ("to", "2025-06-01T04:30"),
        ("reason", "flood"),
    ];
    // With the secrets of another page's form.
    let refused = network
        .send_form("/account/tokens", &format!("{page}/attacks"), &attack)
        .await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
}

#[tokio::test]
async fn ops_flags_an_attack_and_takes_it_back() {
    let world = World::new().await;
    world.portal.user("ops", Role::Ops, None).await;
    let mut ops = world.portal.signed_in("ops").await;
    let page = format!("/ops/services/{}", world.percentile);
    let (flag, other) = (
        format!("{page}/attacks"),
        format!("/ops/services/{}/attacks", world.transfer),
    );
    let time = [("from", "2025-06-01T04:00"), ("to", "2025-06-01T04:30")];

    let shown = ops.get(&page).await;
    assert!(
        shown.body.contains("Flag an attack") && !shown.body.contains("Remove flag"),
        "{}",
        shown.body
    );
    let flagged = ops
        .send_form(&page, &flag, &[time[0], time[1], ("reason", "UDP <flood>")])
        .await;
    assert_eq!(flagged.status, StatusCode::SEE_OTHER, "{}", flagged.body);
    let shown = ops.get(&format!("{page}?done=flag")).await;
    for text in [
        "UDP &#60;flood&#62;",
        "ops@example.net",
        "Remove flag",
        "Windows flagged",
    ] {
        assert!(shown.body.contains(text), "{text}: {}", shown.body);
    }
    let db = world.portal.state.db();
    let held = billing::exclusion::exclusions_of(db.pool(), world.percentile)
        .await
        .unwrap();
    assert_eq!((held.len(), held[0].to_ms - held[0].from_ms), (1, 1_800_000));

    // Its customer reads that it is not charged, and that it is no gap.
    let mut ada = world.portal.signed_in("ada").await;
    for path in ["/usage".to_owned(), format!("/usage/{}", world.percentile)] {
        let shown = ada.get(&path).await.body;
        assert!(
            shown.contains("30 min of attack traffic, not charged ("),
            "{path}: {shown}"
        );
    }

    // Another service's page does not take it back, and a time without a window flags nothing.
    let elsewhere = format!("{other}/{}/revoke", held[0].id);
    let refused = ops.send_form(&page, &elsewhere, &[]).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND);
    for (from, to, why) in [
        ("2025-06-01T04:30", "2025-06-01T04:00", "after the start"),
        ("2025-06-01T04:01", "2025-06-01T04:04", "No 5-minute window"),
        ("2025-06-01T04:01", "2025-06-01T04:05", "No 5-minute window"),
        ("soon", "2025-06-01T04:00", "A time is like"),
        ("2025-06-01T04:00", "2025-09-01T04:00", "length of an exclusion"),
    ] {
        let fields = [("from", from), ("to", to), ("reason", "a flood")];
        let refused = ops.send_form(&page, &flag, &fields).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{from}");
        assert!(
            refused.body.to_lowercase().contains(&why.to_lowercase()),
            "{why}: {}",
            refused.body
        );
        assert!(
            refused.body.contains(&format!("value=\"{from}\"")),
            "what was typed stays"
        );
    }

    let back = ops
        .send_form(&page, &format!("{flag}/{}/revoke", held[0].id), &[])
        .await;
    assert_eq!(back.status, StatusCode::SEE_OTHER, "{}", back.body);
    assert!(billing::exclusion::in_force(db.pool()).await.unwrap().is_empty());
    let shown = ops.get(&page).await;
    assert!(
        shown.body.contains("removed") && !shown.body.contains("Remove flag"),
        "{}",
        shown.body
    );
    let of_ops = AuditFilter {
        actor: Some("ops@example.net"),
        ..AuditFilter::default()
    };
    let log = audit::list(db.pool(), of_ops, 10).await.unwrap();
    let actions: Vec<&str> = log.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["usage.include", "usage.exclude"]);
}

#[tokio::test]
async fn s1_only_those_who_watch_the_network_flag() {
    let world = World::new().await;
    for role in [Role::Finance, Role::Ops] {
        world.portal.user(role.name(), role, None).await;
    }
    let mut ops = world.portal.signed_in("ops").await;
    let token = ops.get(&format!("/ops/services/{}", world.transfer)).await.form_token();
    for name in ["finance", "ada"] {
        let mut browser = world.portal.signed_in(name).await;
        let csrf = browser.get("/account").await.csrf_token();
        let form = [
            ("csrf_token", csrf.as_str()),
            ("form_token", token.as_str()),
            ("from", "2025-06-01T04:00"),
            ("to", "2025-06-01T04:30"),
            ("reason", "mine"),
        ];
        let answer = browser
            .post(&format!("/ops/services/{}/attacks", world.transfer), &form)
            .await;
        assert!(
            matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::FORBIDDEN),
            "{name}: {}",
            answer.status
        );
    }
    let db = world.portal.state.db();
    assert!(billing::exclusion::in_force(db.pool()).await.unwrap().is_empty());
}

#[tokio::test]
async fn only_a_short_time_that_was_chosen_is_suggested() {
    let world = World::new().await;
    world.portal.user("ops", Role::Ops, None).await;
    let mut ops = world.portal.signed_in("ops").await;
    let page = format!("/ops/services/{}", world.transfer);
    for (query, from) in [
        ("", ""),
        ("?range=24h", ""),
        ("?from=2025-06-14T10:00:00Z&to=2025-06-14T12:05:00Z", ""),
        ("?from=2025-06-14T10:00:00Z&to=2025-06-14T12:00:00Z", "2025-06-14T10:00"),
    ] {
        let answer = ops.get(&format!("{page}{query}")).await;
        let field = format!("id=\"flag-from\" name=\"from\" value=\"{from}\"");
        assert!(answer.body.contains(&field), "{query}: {}", answer.body);
    }
}
