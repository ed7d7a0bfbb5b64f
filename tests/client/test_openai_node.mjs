// The official openai package for Node against a running pipeline (MILLRACE_CLIENT_URL, _KEY, _WORKER).
import assert from 'node:assert/strict';
import test from 'node:test';
import OpenAI from 'openai';

const baseURL = process.env.MILLRACE_CLIENT_URL + '/v1';
const model = 'millrace-demo';
const messages = [{ role: 'user', content: 'Describe seventeen blue kettles on a windy glacier, please.' }];
const tooLong = [{ role: 'user', content: 'many words in a long row '.repeat(20000) }];

const client = (apiKey = process.env.MILLRACE_CLIENT_KEY) =>
  new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 120000 });

async function streamText(options) {
  const out = { text: '', finish: null, usage: null };
  for await (const chunk of await client().chat.completions.create({ model, stream: true, ...options })) {
    out.usage = chunk.usage ?? out.usage;
    out.text += chunk.choices[0]?.delta.content ?? '';
    out.finish = chunk.choices[0]?.finish_reason ?? out.finish;
  }
  return out;
}

test('a stream and a whole answer say the same', async () => {
  const options = { messages, temperature: 0, seed: 7, max_tokens: 40 };
  const whole = await client().chat.completions.create({ model, ...options });
  const stream = await streamText({ ...options, stream_options: { include_usage: true } });
  assert.ok(stream.text.length > 0);
  assert.equal(whole.choices[0].message.content, stream.text);
  assert.equal(whole.choices[0].finish_reason, stream.finish);
  assert.equal(whole.usage.total_tokens, stream.usage.total_tokens);
});

test('the streaming helper puts the answer together', async () => {
  const runner = client().chat.completions.stream({ model, messages, max_tokens: 20 });
  const done = await runner.finalChatCompletion();
  assert.equal(done.choices[0].message.role, 'assistant');
  assert.ok(done.choices[0].finish_reason);
});

test('several answers are kept apart', async () => {
  const options = { model, messages, n: 2, temperature: 2, seed: 7, max_tokens: 12 };
  const whole = await client().chat.completions.create(options);
  const runner = client().chat.completions.stream(options);
  const streamed = await runner.finalChatCompletion();
  assert.deepEqual(streamed.choices.map((c) => c.message.content), whole.choices.map((c) => c.message.content));
  assert.notEqual(whole.choices[0].message.content, whole.choices[1].message.content);
});

test('models are listed', async () => {
  const ids = [];
  for await (const m of client().models.list()) ids.push(m.id);
  assert.ok(ids.includes(model));
});

test('a bad key, a bad model and a bad parameter each have their error', async () => {
  const ask = (c, options) => c.chat.completions.create({ model, messages, ...options });
  await assert.rejects(ask(client('sk-wrong')), OpenAI.AuthenticationError);
  await assert.rejects(ask(client(), { model: 'gpt-99' }), OpenAI.NotFoundError);
  await assert.rejects(ask(client(), { temperature: 5 }), (e) => e instanceof OpenAI.BadRequestError && e.param === 'temperature');
});

test('an error in a stream is thrown', async () => {
  await assert.rejects(streamText({ messages: tooLong }), (e) => e instanceof OpenAI.APIError && /context/.test(e.message));
});

const running = async () => {
  const page = await (await fetch(process.env.MILLRACE_CLIENT_WORKER)).text();
  return Number(page.match(/^millrace_worker_running_requests(?:\{[^}]*\})? (\S+)$/m)[1]);
};

test('an aborted stream ends quietly and frees the engine, and the next request is served', async () => {
  const stream = await client().chat.completions.create({ model, messages, stream: true, max_tokens: 3000, ignore_eos: true });
  let chunks = 0;
  for await (const _ of stream) {
    if (++chunks === 3) stream.controller.abort();
  }
  assert.ok(chunks < 3000);
  const deadline = Date.now() + 30000;
  while ((await running()) > 0) assert.ok(Date.now() < deadline, 'the worker goes on although nobody listens');
  assert.ok((await streamText({ messages, max_tokens: 5 })).finish);
});
