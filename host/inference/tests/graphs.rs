//! A graph runs on tensors; tensors that do not fit are refused with a reason.
#![allow(clippy::unwrap_used, reason = "a test helper fails the test by panicking")]

mod support;

use formwork_inference::{Error, Tensor, TensorData};
use support::{call, dot, service, texts};

/// "[CLS] hello world [SEP]" in the model's vocabulary.
const HELLO_WORLD: [i64; 4] = [101, 7592, 2088, 102];

type Inputs = Vec<(String, Tensor)>;

fn inputs(ids: &[i64]) -> Inputs {
    let shape = vec![1, u32::try_from(ids.len()).unwrap()];
    let tensor = |data: Vec<i64>| Tensor {
        shape: shape.clone(),
        data: TensorData::I64(data),
    };
    vec![
        ("input_ids".to_owned(), tensor(ids.to_vec())),
        ("attention_mask".to_owned(), tensor(vec![1; ids.len()])),
        ("token_type_ids".to_owned(), tensor(vec![0; ids.len()])),
    ]
}

#[tokio::test]
async fn pooling_a_graphs_output_by_hand_gives_the_embedding() {
    for model in ["graph", "minilm"] {
        let (id, outputs) = service().run(model, inputs(&HELLO_WORLD), &call()).await.unwrap();
        assert_eq!(id.name, model);
        let (name, states) = &outputs[0];
        assert_eq!(
            (name.as_str(), states.shape.as_slice()),
            ("last_hidden_state", &[1, 4, 384][..])
        );
        let TensorData::F32(states) = &states.data else {
            panic!("{:?}", states.data)
        };
        let mean: Vec<f32> = (0..384)
            .map(|at| states.iter().skip(at).step_by(384).sum::<f32>() / 4.0)
            .collect();
        let answer = service()
            .embed("minilm", texts(&["Hello world"]), &call())
            .await
            .unwrap();
        let cosine = dot(&mean, &answer.vectors) / dot(&mean, &mean).sqrt();
        assert!(cosine > 0.999, "{cosine}");
    }
}

#[tokio::test]
async fn tensors_that_do_not_fit_are_invalid_arguments() {
    let change = |edit: &dyn Fn(&mut Inputs)| {
        let mut changed = inputs(&HELLO_WORLD);
        edit(&mut changed);
        changed
    };
    let cases = [
        change(&|inputs| inputs[0].0 = "ids".to_owned()),
        change(&|inputs| drop(inputs.pop())),
        change(&|inputs| inputs.push(inputs[0].clone())),
        change(&|inputs| inputs[0].1.data = TensorData::F32(vec![0.0; 4])),
        change(&|inputs| inputs[0].1.shape = vec![4]),
        change(&|inputs| inputs[0].1.shape = vec![1, 5]),
        change(&|inputs| inputs[0].1.shape = vec![1, 0]),
        change(&|inputs| inputs[0].1.shape = vec![u32::MAX, u32::MAX, 4]),
        Vec::new(),
    ];
    for inputs in cases {
        let error = service().run("graph", inputs.clone(), &call()).await.unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{inputs:?}: {error}");
    }
    // Only the graph knows that these are wrong: a token that is not in the vocabulary, too many.
    for ids in [vec![101, i64::MAX, 102], vec![5; 600]] {
        let error = service().run("graph", inputs(&ids), &call()).await.unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_) | Error::Native(_)), "{error}");
    }
    service().run("graph", inputs(&HELLO_WORLD), &call()).await.unwrap();
}

#[tokio::test]
async fn large_tensors_and_wrong_models_are_refused() {
    let big = Tensor {
        shape: vec![1, 5_000_000],
        data: TensorData::I64(vec![0; 5_000_000]),
    };
    let error = service()
        .run("graph", vec![("input_ids".to_owned(), big)], &call())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::TooLarge { got: 40_000_000, .. }), "{error}");
    let error = service().run("smol", inputs(&HELLO_WORLD), &call()).await.unwrap_err();
    assert!(matches!(error, Error::WrongTask { wanted: "run", .. }), "{error}");
}
