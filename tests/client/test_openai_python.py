"""The official openai package for Python against a running pipeline (MILLRACE_CLIENT_URL, _KEY, _WORKER)."""

import asyncio
import os
import re
import time
import unittest
import urllib.request

import openai

URL = os.environ["MILLRACE_CLIENT_URL"]
KEY = os.environ["MILLRACE_CLIENT_KEY"]
MODEL = "millrace-demo"
# Far from anything that a knowledge base would answer, so that the model does.
ASK = [{"role": "user", "content": "Describe seventeen blue kettles on a windy glacier, please."}]
CHINESE = "水车在河边慢慢地转动，磨坊里的人把麦子磨成面粉。" * 20


def client(key=KEY):
    return openai.OpenAI(base_url=URL + "/v1", api_key=key, max_retries=0, timeout=120)


def stream_text(**options):
    """The streamed answer, and its last finish_reason and usage."""
    text, finish, usage = "", None, None
    for chunk in client().chat.completions.create(model=MODEL, stream=True, **options):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    return text, finish, usage


def worker_metric(name):
    """A number from the worker's metrics page."""
    page = urllib.request.urlopen(os.environ["MILLRACE_CLIENT_WORKER"], timeout=20).read().decode()
    return sum(float(v) for v in re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", page, re.M))


class Answers(unittest.TestCase):
    def test_a_stream_and_a_whole_answer_say_the_same(self):
        options = {"messages": ASK, "temperature": 0, "seed": 7, "max_tokens": 40}
        whole = client().chat.completions.create(model=MODEL, **options)
        text, finish, usage = stream_text(stream_options={"include_usage": True}, **options)
        self.assertTrue(text)
        self.assertEqual(whole.choices[0].message.content, text)
        self.assertEqual(whole.choices[0].finish_reason, finish)
        self.assertEqual(whole.usage.completion_tokens, usage.completion_tokens)
        self.assertEqual(whole.usage.prompt_tokens, usage.prompt_tokens)
        self.assertEqual(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
        self.assertGreater(usage.prompt_tokens, 0)

    def test_a_seed_repeats_a_drawn_answer(self):
        options = {"messages": ASK, "temperature": 1, "seed": 11, "max_tokens": 30}
        self.assertEqual(stream_text(**options), stream_text(**options))

    def test_the_token_limit_holds(self):
        text, finish, usage = stream_text(
            messages=ASK, max_tokens=3, stream_options={"include_usage": True}, extra_body={"ignore_eos": True})
        self.assertEqual(finish, "length")
        self.assertEqual(usage.completion_tokens, 3)

    def test_a_stop_string_ends_the_answer_before_it(self):
        text, _, _ = stream_text(messages=ASK, temperature=0, max_tokens=40)
        stop = text[len(text) // 2:][:3]
        cut, finish, _ = stream_text(messages=ASK, temperature=0, max_tokens=40, stop=[stop])
        self.assertEqual(cut, text[:text.index(stop)])
        self.assertEqual(finish, "stop")

    def test_long_chinese_text_goes_in_and_comes_out_whole(self):
        text, _, usage = stream_text(messages=[{"role": "user", "content": CHINESE + "请接着写。"}], max_tokens=60,
                                     stream_options={"include_usage": True}, extra_body={"ignore_eos": True})
        self.assertGreater(usage.prompt_tokens, 100)
        self.assertTrue(text)

    def test_log_probabilities_spell_the_answer(self):
        answer = client().chat.completions.create(
            model=MODEL, messages=ASK, max_tokens=10, temperature=0, logprobs=True, top_logprobs=2)
        choice = answer.choices[0]
        spelled = b"".join(bytes(t.bytes) for t in choice.logprobs.content).decode(errors="replace")
        self.assertTrue(spelled.startswith(choice.message.content))
        for token in choice.logprobs.content:
            self.assertLessEqual(token.logprob, 0)
            self.assertEqual(len(token.top_logprobs), 2)

    def test_streamed_log_probabilities_are_the_same(self):
        options = {"model": MODEL, "messages": ASK, "max_tokens": 10, "temperature": 0, "logprobs": True, "top_logprobs": 2}
        whole = client().chat.completions.create(**options).choices[0].logprobs.content
        streamed = [t for chunk in client().chat.completions.create(stream=True, **options)
                    for c in chunk.choices if c.logprobs for t in c.logprobs.content]
        self.assertEqual([(t.token, t.logprob) for t in streamed], [(t.token, t.logprob) for t in whole])

    def test_several_answers_to_one_question(self):
        options = {"model": MODEL, "messages": ASK, "temperature": 2, "seed": 11, "max_tokens": 20}
        several = client().chat.completions.create(n=3, **options)
        texts = [c.message.content for c in several.choices]
        self.assertEqual([c.index for c in several.choices], [0, 1, 2])
        self.assertEqual(len(set(texts)), 3)
        alone = client().chat.completions.create(**options)
        self.assertEqual(texts[0], alone.choices[0].message.content, "the first is as if it were the only one")
        self.assertEqual(several.usage.prompt_tokens, alone.usage.prompt_tokens)
        streamed = ["", "", ""]
        for chunk in client().chat.completions.create(n=3, stream=True, **options):
            for choice in chunk.choices:
                streamed[choice.index] += choice.delta.content or ""
        self.assertEqual(streamed, texts)

    def test_a_second_turn_finds_the_first_in_the_cache(self):
        turn = [{"role": "user", "content": "Tell me more about the nine brass kettles of the glacier. " * 4}]
        first = client().chat.completions.create(model=MODEL, messages=turn, max_tokens=8)
        turn += [{"role": "assistant", "content": first.choices[0].message.content},
                 {"role": "user", "content": "And the tenth?"}]
        usage = client().chat.completions.create(model=MODEL, messages=turn, max_tokens=8).usage
        self.assertGreater(usage.prompt_tokens_details.cached_tokens, 0.6 * first.usage.prompt_tokens)
        self.assertEqual(usage.prompt_cache_hit_tokens, usage.prompt_tokens_details.cached_tokens)

    def test_many_streams_at_once(self):
        async def one(c, i):
            stream = await c.chat.completions.create(
                model=MODEL, stream=True, max_tokens=20, temperature=0,
                messages=[{"role": "user", "content": f"Count {i % 3} kettles on a windy glacier."}])
            return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

        async def all_of_them():
            async with openai.AsyncOpenAI(base_url=URL + "/v1", api_key=KEY, max_retries=0) as c:
                return await asyncio.gather(*(one(c, i) for i in range(24)))

        texts = asyncio.run(all_of_them())
        for i, text in enumerate(texts):
            self.assertTrue(text)
            self.assertEqual(text, texts[i % 3], "an answer depends on what else is in the batch")

    def test_every_answer_has_its_own_request_id(self):
        ids = {client().chat.completions.create(model=MODEL, messages=ASK, max_tokens=1)._request_id for _ in range(3)}
        self.assertEqual(len(ids), 3)
        self.assertTrue(all(re.fullmatch(r"chatcmpl-[0-9A-Za-z_-]{52}", i) for i in ids))

    def test_models_are_listed(self):
        self.assertIn(MODEL, [m.id for m in client().models.list()])
        self.assertEqual(client().models.retrieve(MODEL).id, MODEL)


class Errors(unittest.TestCase):
    def refused(self, error, **options):
        with self.assertRaises(error) as caught:
            client().chat.completions.create(**{"model": MODEL, "messages": ASK, **options})
        return caught.exception

    def test_a_bad_key(self):
        with self.assertRaises(openai.AuthenticationError) as caught:
            client("sk-wrong").chat.completions.create(model=MODEL, messages=ASK)
        self.assertEqual(caught.exception.code, "invalid_api_key")

    def test_a_bad_model(self):
        self.assertEqual(self.refused(openai.NotFoundError, model="gpt-99").code, "model_not_found")

    def test_a_bad_parameter_is_named(self):
        self.assertEqual(self.refused(openai.BadRequestError, temperature=5).param, "temperature")
        self.assertEqual(self.refused(openai.BadRequestError, n=100).param, "n")
        self.assertEqual(self.refused(openai.BadRequestError, messages=[]).param, "messages")
        self.assertEqual(self.refused(openai.BadRequestError, max_tokens="many").param, "max_tokens")
        self.assertEqual(self.refused(openai.BadRequestError, messages="hello").param, "messages")
        self.assertEqual(self.refused(openai.BadRequestError, messages=[{"role": "user", "content": 5}]).param,
                         "messages[0].content")

    def test_a_body_over_the_limit(self):
        error = self.refused(openai.APIStatusError, messages=[{"role": "user", "content": "x" * 5000000}])
        self.assertEqual((error.status_code, error.code), (413, "request_too_large"))

    def test_what_is_not_supported_is_refused(self):
        tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
        error = self.refused(openai.BadRequestError, tools=[tool])
        self.assertIn("tools: this model's chat template has none", str(error))
        self.assertEqual(self.refused(openai.BadRequestError, functions=[{"name": "f"}], stream=True).param, "functions")

    def test_a_conversation_that_is_too_long(self):
        long = [{"role": "user", "content": "many words in a long row " * 20000}]
        self.assertIn("context", str(self.refused(openai.BadRequestError, messages=long)))

    def test_an_error_in_a_stream_is_raised(self):
        long = [{"role": "user", "content": "many words in a long row " * 20000}]
        with self.assertRaises(openai.APIError) as caught:
            stream_text(messages=long)
        self.assertIn("context", str(caught.exception))


class Cancels(unittest.TestCase):
    def test_a_closed_stream_frees_its_slot(self):
        limit = 3000
        before = worker_metric("millrace_worker_generated_tokens_total")
        stream = client().chat.completions.create(model=MODEL, messages=ASK, stream=True, max_tokens=limit,
                                                  extra_body={"ignore_eos": True})
        for _ in range(3):
            next(iter(stream))
        stream.close()
        deadline = time.monotonic() + 30
        while worker_metric("millrace_worker_running_requests") > 0:
            self.assertLess(time.monotonic(), deadline, "the worker goes on although nobody listens")
            time.sleep(0.05)
        self.assertLess(worker_metric("millrace_worker_generated_tokens_total") - before, limit)


if __name__ == "__main__":
    unittest.main(verbosity=2)
