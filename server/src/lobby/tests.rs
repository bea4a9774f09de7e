use super::*;

const SECONDS: Duration = Duration::from_secs(10);

async fn lobby() -> (Lobby, String) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap().to_string();
    (Lobby::open(socket, Limits::default()), address)
}

fn search(own: &str, join: &[&String], form: &[&String]) -> Search {
    let owned = |list: &[&String]| list.iter().map(|address| (*address).clone()).collect();
    Search { own: own.to_owned(), join: owned(join), form: owned(form), partitions: None }
}

#[tokio::test]
async fn whoever_waits_answers_that_there_is_no_cluster() {
    let (_lobby, address) = lobby().await;
    assert_eq!(probe(&address).await, Probe::NoCluster);
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    assert_eq!(probe(&socket.local_addr().unwrap().to_string()).await, Probe::Silent);
}

#[tokio::test]
async fn operator_founds_and_is_answered_when_it_is_done() {
    let (mut lobby, address) = lobby().await;
    let init = InitCluster { replicas: 3, partitions: 8, force: false, asker: None };
    let call = tokio::spawn({
        let address = address.clone();
        async move { init_cluster(&address, init, SECONDS).await }
    });
    let formed = lobby.formed(&search(&address, &[&address], &[])).await;
    assert_eq!(formed, Formed::Found(Some(init)));
    let late = tokio::spawn(async move { init_cluster(&address, init, SECONDS).await });
    let late = lobby.while_opening(late).await.unwrap().unwrap_err();
    assert!(matches!(late.status(), Some(Status::ChangeRefused { .. })), "{late}");
    assert!(!call.is_finished());
    assert!(lobby.close().await.is_some());
    call.await.unwrap().unwrap();
}

fn order(force: bool) -> InitCluster {
    InitCluster { replicas: 3, partitions: 8, force, asker: None }
}

/// What the operator is told who says init.
fn say(address: &str, force: bool) -> tokio::task::JoinHandle<Option<Status>> {
    let address = address.to_owned();
    tokio::spawn(async move {
        let said = init_cluster(&address, order(force), SECONDS).await;
        said.err().and_then(|error| error.status().cloned())
    })
}

#[tokio::test]
async fn nobody_founds_beside_silent_nodes_unless_that_is_said() {
    let (mut lobby, address) = lobby().await;
    let silent = "127.0.0.1:1".to_owned();
    let search = search(&address, &[&address, &silent], &[]);
    let refused = say(&address, false);
    let formed = tokio::select! {
        formed = lobby.formed(&search) => Some(formed),
        status = refused => {
            let Some(Status::ChangeRefused { refusal, said }) = status.unwrap() else { panic!() };
            assert!(refusal == ChangeRefusal::NodeSilent && said.contains(&silent), "{said}");
            None
        }
    };
    assert_eq!(formed, None);
    let _founded = say(&address, true);
    assert_eq!(lobby.formed(&search).await, Formed::Found(Some(order(true))));
}

#[tokio::test]
async fn nobody_founds_with_other_partitions_than_its_configuration_names() {
    let (mut lobby, address) = lobby().await;
    let mut search = search(&address, &[&address], &[]);
    search.partitions = Some(4);
    let refused = say(&address, true);
    tokio::select! {
        formed = lobby.formed(&search) => panic!("{formed:?}"),
        status = refused => {
            let Some(Status::ChangeRefused { said, .. }) = status.unwrap() else { panic!() };
            assert!(said.contains("names 4 partitions, not 8") && said.contains("--partitions 4"), "{said}");
        }
    }
    search.partitions = Some(8);
    let _founded = say(&address, false);
    assert_eq!(lobby.formed(&search).await, Formed::Found(Some(order(false))));
}

#[tokio::test]
async fn of_three_that_are_told_at_once_one_founds() {
    let mut lobbies = [lobby().await, lobby().await, lobby().await];
    let all = lobbies.each_ref().map(|(_, address)| address.clone());
    let list: Vec<&String> = all.iter().collect();
    let searches = all.each_ref().map(|own| search(own, &list, &[]));
    let said = all.each_ref().map(|address| say(address, false));
    let [(a, _), (b, _), (c, _)] = &mut lobbies;
    let mut founded = 0;
    let (first, second, third) = tokio::join!(
        timeout(2 * FOUNDING_WAIT, a.formed(&searches[0])),
        timeout(2 * FOUNDING_WAIT, b.formed(&searches[1])),
        timeout(2 * FOUNDING_WAIT, c.formed(&searches[2])),
    );
    for formed in [first, second, third].into_iter().flatten() {
        assert_eq!(formed, Formed::Found(Some(order(false))));
        founded += 1;
    }
    assert_eq!(founded, 1);
    for lobby in lobbies {
        drop(lobby.0.close().await);
    }
    let said = futures_util::future::join_all(said).await;
    let refused = said.iter().filter(|said| matches!(said, Ok(Some(Status::ChangeRefused { .. })))).count();
    assert_eq!(refused, 2, "{said:?}");
}

#[tokio::test]
async fn the_first_of_the_list_waits_for_a_later_one_and_a_later_one_gives_way() {
    let (mut first, a) = lobby().await;
    let (mut second, b) = lobby().await;
    // This one is known to the list by another name.
    let other_name = a.replace("127.0.0.1", "localhost");
    let list = [&other_name, &b];
    first.stance.set(Intent::Asks);
    let (searched, refused) = (search(&b, &list, &[]), say(&b, false));
    tokio::select! {
        formed = second.formed(&searched) => panic!("{formed:?}"),
        status = refused => {
            let Some(Status::ChangeRefused { refusal, said }) = status.unwrap() else { panic!() };
            assert_eq!(refusal, ChangeRefusal::Founding);
            assert!(said.contains(&format!("say init on {other_name}")), "{said}");
        }
    }
    // It may have been told that it may, before the first one asked.
    second.stance.set(Intent::Asks);
    let (searched, _founded) = (search(&a, &list, &[]), say(&a, false));
    let mut formed = Box::pin(first.formed(&searched));
    assert!(timeout(2 * PROBE_EVERY, &mut formed).await.is_err());
    second.stance.set(Intent::Waits);
    assert_eq!(formed.await, Formed::Found(Some(order(false))));
}

#[tokio::test]
async fn first_of_the_list_founds_when_all_others_say_that_there_is_none() {
    let (mut first, a) = lobby().await;
    let (mut second, b) = lobby().await;
    let (form, silent) = ([&a, &b], "127.0.0.1:1".to_owned());
    assert_eq!(first.formed(&search(&a, &[], &form)).await, Formed::Found(None));
    let waits = [
        timeout(3 * PROBE_EVERY, second.formed(&search(&b, &[], &form))).await,
        timeout(3 * PROBE_EVERY, first.formed(&search(&a, &[], &[&a, &b, &silent]))).await,
    ];
    assert!(waits.iter().all(Result::is_err), "{waits:?}");
}
