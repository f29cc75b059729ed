use super::*;
use formwork_store::{Error, PutForm};

pub(crate) async fn versions_are_immutable_and_numbered(store: &dyn Store) {
    let first = form(vec![Step::new("check")]);
    let second = form(vec![Step::new("check"), Step::new("intent")]);

    let put = |form: NewForm| async move { store.put_form(form, NOW).await.expect("published") };
    assert_eq!(put(first.clone()).await, PutForm::Created(1));
    assert_eq!(put(first.clone()).await, PutForm::Unchanged(1));
    assert_eq!(put(second.clone()).await, PutForm::Created(2));
    assert_eq!(
        put(first.clone()).await,
        PutForm::Created(3),
        "an older definition is a new version"
    );

    let read = store.form(FORM, Some(1)).await.expect("read").expect("exists");
    assert_eq!((read.version, &read.definition), (1, &first.definition));
    assert_eq!(read.steps, first.steps);
    let latest = store.form(FORM, None).await.expect("read").expect("exists");
    assert_eq!(latest.version, 3);
    assert_eq!(store.form(FORM, Some(9)).await.expect("read"), None);
    assert_eq!(store.form("nothing", None).await.expect("read"), None);

    let versions = store.form_versions(FORM).await.expect("read");
    assert_eq!(versions.iter().map(|form| form.version).collect::<Vec<_>>(), [1, 2, 3]);
}

pub(crate) async fn a_bad_pipeline_is_refused_with_its_place(store: &dyn Store) {
    let steps = vec![Step::new("check"), Step::new("intent").after(["chekc"])];
    match store.put_form(form(steps), NOW).await {
        Err(Error::Pipeline(error)) => assert_eq!(error.pointer(), "/pipeline/1/after/0"),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.form(FORM, None).await.expect("read"), None, "nothing was stored");
}

pub(crate) async fn forms_are_listed_by_name_in_pages(store: &dyn Store) {
    for id in ["delta", "alpha", "charlie", "bravo"] {
        let new = NewForm {
            id: id.into(),
            ..form(vec![])
        };
        store.put_form(new, NOW).await.expect("published");
    }
    let changed = NewForm {
        id: "alpha".into(),
        ..form(vec![Step::new("check")])
    };
    store.put_form(changed, NOW).await.expect("published");

    let first = store.forms(page(3, None)).await.expect("listed");
    let names: Vec<_> = first
        .items
        .iter()
        .map(|form| (form.id.as_str(), form.version))
        .collect();
    assert_eq!(names, [("alpha", 2), ("bravo", 1), ("charlie", 1)]);
    let second = store.forms(page(3, first.next)).await.expect("listed");
    assert_eq!(second.items.len(), 1);
    assert_eq!(second.next, None);
}
