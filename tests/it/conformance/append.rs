//! Appending: durable, in order, all or nothing.

use crate::harness::everything;
use crate::harness::logs::{key, message};
use sluicebox::log::LogError;
use sluicebox::message::{
    BODY_BYTES_MAX, HEADERS_BYTES_MAX, Headers, ID_BYTES_MAX, Message, MessageError, NewMessage, Offset,
};

fn headers(bytes: usize) -> Headers {
    Headers::new(vec![("a".into(), "x".repeat(bytes - 1))])
}

on_every_kind! {
    async fn a_message_comes_back_with_every_field(log) {
        let full = NewMessage {
            key: Some(key("ключ")),
            id: Some("id-1".into()),
            headers: Headers::new(vec![("Name".into(), "".into()), ("name".into(), "zwei".into())]),
            hops: 32,
            ..message("a.b", vec![0, 255, 10])
        };
        let sent = vec![full, message("a.b", ""), message("_own", "x")];
        let offsets = log.append(sent.clone()).await.unwrap();
        let stored = everything(&*log).await;
        let expected: Vec<Message> = sent
            .into_iter()
            .zip(&offsets)
            .zip(&stored)
            .map(|((new, offset), stored)| Message::from_new(new, *offset, stored.time))
            .collect();
        assert_eq!(stored.iter().map(|message| (**message).clone()).collect::<Vec<_>>(), expected);
    }

    async fn offsets_rise_and_times_never_fall(log) {
        assert_eq!(log.end().await.unwrap(), Offset::START);
        let mut answered = vec![];
        for _ in 0..20 {
            answered.extend(log.append(vec![message("a", ""), message("b", "")]).await.unwrap());
            assert_eq!(log.end().await.unwrap(), *answered.last().unwrap());
        }
        assert!(answered[0] > Offset::START && answered.is_sorted_by(|a, b| a < b), "{answered:?}");
        let stored = everything(&*log).await;
        assert_eq!(stored.iter().map(|message| message.offset).collect::<Vec<_>>(), answered);
        assert!(stored.is_sorted_by_key(|message| message.time) || !log.guarantees().times_never_fall);
    }

    async fn appends_at_once_each_keep_their_order(log) {
        let appenders = (0..8u8).map(|who| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut offsets = vec![];
                for round in 0..25u8 {
                    let list = (0..3).map(|at| message("a", vec![who, round, at])).collect();
                    offsets.extend(log.append(list).await.unwrap());
                }
                offsets
            })
        });
        let mut expected = vec![];
        for (who, appender) in appenders.collect::<Vec<_>>().into_iter().enumerate() {
            let offsets = appender.await.unwrap();
            assert!(offsets.is_sorted_by(|a, b| a < b));
            let bodies = (0..25).flat_map(|round| (0..3).map(move |at| vec![who as u8, round, at]));
            expected.extend(offsets.into_iter().zip(bodies));
        }
        expected.sort();
        let stored = everything(&*log).await;
        assert_eq!(stored.iter().map(|m| (m.offset, m.body.to_vec())).collect::<Vec<_>>(), expected);
    }

    async fn a_message_at_the_limits_is_taken(log) {
        let largest = NewMessage {
            key: Some(key(&"k".repeat(256))),
            id: Some("i".repeat(ID_BYTES_MAX).into()),
            headers: headers(HEADERS_BYTES_MAX),
            ..message("a", vec![b'x'; BODY_BYTES_MAX])
        };
        log.append(vec![largest.clone()]).await.unwrap();
        let stored = everything(&*log).await;
        assert_eq!((&stored[0].body, &stored[0].headers), (&largest.body, &largest.headers));
    }

    async fn one_message_beyond_a_limit_refuses_its_whole_list(log) {
        let beyond = [
            message("a", vec![0; BODY_BYTES_MAX + 1]),
            NewMessage { headers: headers(HEADERS_BYTES_MAX + 1), ..message("a", "") },
            NewMessage { id: Some("i".repeat(ID_BYTES_MAX + 1).into()), ..message("a", "") },
        ];
        for bad in beyond {
            let error = log.append(vec![message("a", "good"), bad]).await.unwrap_err();
            assert!(matches!(error, LogError::Message(_)), "{error}");
        }
        let error = log.append(vec![message("a", vec![0; BODY_BYTES_MAX + 7])]).await.unwrap_err();
        assert!(matches!(error, LogError::Message(MessageError::BodyTooLarge { bytes }) if bytes == BODY_BYTES_MAX + 7));
        assert_eq!(log.end().await.unwrap(), Offset::START);
    }

    async fn an_empty_append_writes_nothing(log) {
        assert_eq!(log.append(vec![]).await.unwrap(), []);
        assert_eq!(log.end().await.unwrap(), Offset::START);
    }
}
