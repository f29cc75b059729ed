//! Configuration: layers, and what a mistake gets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

use formwork_scheduler::Presence;
use formwork_server::config::{ConfigError, Loaded, Role, StoreUrl, load_with};
use formwork_tasks::Pool;

fn load(file: Option<&str>, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("formwork.toml");
    std::fs::write(&path, file.unwrap_or_default()).unwrap();
    let mut environment: Vec<(String, String)> = vec![("HOME".into(), "/home/someone".into())];
    environment.extend(
        variables
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned())),
    );
    load_with(Some(&path), environment)
}

fn refused(file: Option<&str>, variables: &[(&str, &str)]) -> String {
    load(file, variables).unwrap_err().to_string()
}

#[test]
fn later_layers_win() {
    let defaults = load(None, &[]).unwrap().config;
    assert_eq!(defaults.http.listen.port(), 8080);
    assert_eq!(
        defaults.plugins.folder.to_str(),
        Some("/home/someone/.cache/formwork/plugins")
    );
    assert_eq!(defaults.models.len(), 2);
    let file =
        "store = \"sqlite:a.db\"\n[http]\nlisten = \"127.0.0.1:9000\"\njson_depth = 10\n[pools.high]\nthreads = 3\n";
    let read = load(
        Some(file),
        &[("FORMWORK_HTTP__LISTEN", "127.0.0.1:9001"), ("FORMWORK_LOG", "debug")],
    )
    .unwrap()
    .config;
    assert_eq!((read.http.listen.port(), read.http.json_depth), (9001, 10));
    assert_eq!((read.pools.high.threads, read.store.as_str()), (3, "sqlite:a.db"));
    assert_eq!(read.log.filter, "debug");
    assert_eq!(read.pools.high.inbox, defaults.pools.high.inbox);
}

#[test]
fn a_cpu_limit_may_be_a_whole_number_and_0_is_none() {
    let cpus = |text: &str| {
        let read = load(Some(&format!("[pools.batched]\ncpus = {text}")), &[]).unwrap();
        read.config.pools.batched.cpus
    };
    assert_eq!(
        [cpus("0.5"), cpus("1"), cpus("0"), cpus("0.0")],
        [Some(0.5), Some(1.0), None, None]
    );
    let read = load(None, &[("FORMWORK_POOLS__HIGH__CPUS", "2")]).unwrap().config;
    assert_eq!((read.pools.high.cpus, read.pools.batched.cpus), (Some(2.0), None));
}

#[test]
fn lists_and_open_tables_can_be_set() {
    let file = "models = []\n[plugins.grants]\nmine = [\"embeddings\"]\n";
    let config = load(Some(file), &[("FORMWORK_PLUGINS__GRANTS__OTHER", "[\"sink\"]")])
        .unwrap()
        .config;
    assert!(config.models.is_empty());
    assert_eq!(config.plugins.grants["mine"].len(), 1);
    assert_eq!(config.plugins.grants["other"].len(), 1);
    assert!(config.plugins.grants.contains_key("validate"));
}

#[test]
fn unknown_keys_are_errors_that_name_the_nearest() {
    assert!(
        refused(Some("[http]\nlisen = \"x\""), &[]).contains("unknown key `http.lisen`, did you mean `http.listen`?")
    );
    assert!(refused(Some("listen = \"x\""), &[]).contains("did you mean `http.listen`?"));
    assert!(refused(Some("[engine.default]\ncpu_ms = 1"), &[]).contains("did you mean `engine.defaults`?"));
    assert!(refused(Some("[[models]]\nname = \"m\"\nsha = \"x\""), &[]).contains("models[0]"));
    let variable = refused(None, &[("FORMWORK_HTTP__LISEN", "x")]);
    assert!(
        variable.contains("FORMWORK_HTTP__LISEN") && variable.contains("http.listen"),
        "{variable}"
    );
    let warned = load(None, &[("FORMWORK_SERVICE_HOST", "10.0.0.1")]).unwrap().warnings();
    assert!(
        warned.iter().any(|warning| warning.contains("FORMWORK_SERVICE_HOST")),
        "{warned:?}"
    );
}

#[test]
fn wrong_values_name_their_key() {
    assert!(refused(Some("[http]\nlisten = 80"), &[]).contains("`http.listen`: must be a string, got an integer"));
    assert!(refused(Some("[http]\nlisten = \"nowhere\""), &[]).contains("`http.listen`"));
    assert!(refused(None, &[("FORMWORK_HTTP__JSON_DEPTH", "deep")]).contains("must be an integer"));
    assert!(refused(Some("[http]\njson_depth = 101"), &[]).contains("`http.json_depth`: must be 1 to 100"));
    assert!(refused(Some("[pools.batched]\ncpus = 0.001"), &[]).contains("`pools.batched.cpus`"));
    assert!(refused(Some("[pools.batched]\ncpus = \"half\""), &[]).contains("`pools.batched.cpus`"));
    assert!(refused(Some("[pools.high]\nthreads = 0"), &[]).contains("`pools.high.threads`"));
    assert!(refused(Some("store = \"mongo:x\""), &[]).contains("`store`"));
    assert!(refused(Some("[http\n"), &[]).contains("line 1"));
    assert!(refused(Some("[plugins.grants]\nmine = [\"network\"]"), &[]).contains("network"));
}

#[test]
fn secrets_come_from_files_and_are_masked() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("token");
    std::fs::write(&secret, "s3cret\n").unwrap();
    let file = secret.display().to_string();
    let loaded = load(None, &[("FORMWORK_HTTP__TOKEN_FILE", &file)]).unwrap();
    assert_eq!(loaded.config.http.token, "s3cret");
    let printed = loaded.printed();
    assert!(!printed.contains("s3cret") && printed.contains("********"), "{printed}");
    std::fs::write(&secret, "\n").unwrap();
    assert!(refused(None, &[("FORMWORK_HTTP__TOKEN_FILE", &file)]).contains("is empty"));
    let both = [
        ("FORMWORK_HTTP__TOKEN_FILE", file.as_str()),
        ("FORMWORK_HTTP__TOKEN", "x"),
    ];
    assert!(refused(None, &both).contains("keep one of them"));
}

#[test]
fn what_is_printed_is_a_configuration() {
    let loaded = load(Some("[http]\nlisten = \"127.0.0.1:9000\""), &[]).unwrap();
    let again = load(Some(&loaded.printed()), &[]).unwrap();
    assert_eq!(
        again.printed().lines().skip(1).collect::<Vec<_>>(),
        loaded.printed().lines().skip(1).collect::<Vec<_>>()
    );
}

#[test]
fn a_listener_for_everybody_without_a_token_is_warned_about() {
    let open = load(Some("[http]\nlisten = \"0.0.0.0:8080\""), &[]).unwrap();
    let open = open.warnings();
    assert!(open.iter().any(|warning| warning.contains("token")), "{open:?}");
    let guarded = load(Some("[http]\nlisten = \"0.0.0.0:8080\"\ntoken = \"x\""), &[])
        .unwrap()
        .warnings();
    assert!(guarded.is_empty(), "{guarded:?}");
    let worker = "store = \"mongodb://db/formwork?replicaSet=rs0\"\nredis = \"redis://index\"\nroles = [\"batched\"]";
    let worker = load(Some(&format!("{worker}\n[http]\nlisten = \"0.0.0.0:8080\"")), &[]).unwrap();
    assert!(
        worker.warnings().is_empty(),
        "a process without the API serves probes only"
    );
}

#[test]
fn a_store_says_file_and_durability() {
    let url = StoreUrl::parse("sqlite:data/x.db?durability=interval", "").unwrap();
    assert!(matches!(url, StoreUrl::Sqlite { path, interval: true } if path.to_str() == Some("data/x.db")));
    assert!(StoreUrl::parse("sqlite:", "").is_err());
    assert!(StoreUrl::parse("sqlite:x?sync=1", "").unwrap_err().1.contains("sync=1"));
}

#[test]
fn many_nodes_need_both_servers() {
    let (mongodb, redis) = ("mongodb://db/formwork?replicaSet=rs0", "redis://index:6379");
    let database = |url| match StoreUrl::parse(url, redis) {
        Ok(StoreUrl::Cluster(options)) => options.database,
        other => panic!("{other:?}"),
    };
    assert_eq!(database(mongodb), "formwork");
    assert_eq!(database("mongodb://me:a/b@db:1,db2:2/forms"), "forms");
    assert_eq!(database("mongodb://db"), "formwork");
    assert_eq!(StoreUrl::parse(mongodb, "").unwrap_err().0, "redis");
    assert_eq!(StoreUrl::parse(mongodb, "http://index").unwrap_err().0, "redis");
    assert_eq!(StoreUrl::parse("sqlite:a.db", redis).unwrap_err().0, "redis");
    assert_eq!(StoreUrl::parse("mongo:x", redis).unwrap_err().0, "store");
}

#[test]
fn passwords_in_urls_are_never_shown() {
    let file = "store = \"mongodb://me:se@cret@db:27017/formwork\"\nredis = \"redis://:hidden@index:6379/1\"\n";
    let loaded = load(Some(file), &[]).unwrap();
    let shown = loaded.printed() + &format!("{:?}", StoreUrl::parse(&loaded.config.store, &loaded.config.redis));
    assert!(!shown.contains("cret") && !shown.contains("hidden"), "{shown}");
    assert!(shown.contains("@db:27017") && shown.contains("@index:6379"), "{shown}");
    assert!(!refused(Some("store = \"mongo://me:secret@db\""), &[]).contains("secret"));
}

#[test]
fn secrets_may_come_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("mongodb");
    std::fs::write(&secret, "mongodb://me:secret@db/formwork\n").unwrap();
    let file = format!("redis = \"redis://index\"\nstore_file = \"{}\"\n", secret.display());
    let config = load(Some(&file), &[]).unwrap().config;
    assert_eq!(config.store, "mongodb://me:secret@db/formwork");
    let both = format!("store = \"sqlite:b.db\"\n{file}");
    assert!(refused(Some(&both), &[]).contains("store_file"));
    std::fs::write(&secret, " \n").unwrap();
    assert!(refused(Some(&file), &[]).contains("is empty"));
}

#[test]
fn roles_are_a_part_of_the_product() {
    let many = "store = \"mongodb://db/formwork\"\nredis = \"redis://index\"\n";
    let config = load(Some(many), &[("FORMWORK_ROLES", "api, high")]).unwrap().config;
    assert_eq!(config.roles.to_string(), "api,high");
    assert!(!config.roles.has(Role::Batched));
    let listed = format!("roles = [\"batched\"]\n{many}");
    let worker = load(Some(&listed), &[]).unwrap().config.roles.in_pools();
    assert_eq!(
        (worker.of(Pool::Batched), worker.of(Pool::High)),
        (Presence::Claims, Presence::Absent)
    );
    let api = load(Some(many), &[("FORMWORK_ROLES", "api")])
        .unwrap()
        .config
        .roles
        .in_pools();
    assert_eq!(
        (api.of(Pool::High), api.of(Pool::Batched)),
        (Presence::Calls, Presence::Absent)
    );
    assert!(refused(Some(many), &[("FORMWORK_ROLES", "apis")]).contains("unknown role `apis`"));
    assert!(refused(Some(&format!("roles = []\n{many}")), &[]).contains("at least one role"));
    let alone = refused(Some("roles = [\"api\"]\n"), &[]);
    assert!(alone.contains("`roles`") && alone.contains("embedded"), "{alone}");
}
