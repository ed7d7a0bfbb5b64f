// Tools with the official openai package for Node, against a running pipeline whose model has them (MILLRACE_CLIENT_URL, _KEY).
import assert from 'node:assert/strict';
import test from 'node:test';
import OpenAI from 'openai';

const model = 'millrace-demo';
const messages = [{ role: 'user', content: 'What is the weather in Paris?' }];
const parameters = {
  type: 'object',
  properties: { city: { enum: ['Paris', 'Oslo'] }, days: { type: 'integer', minimum: 1, maximum: 9 } },
  required: ['city', 'days'],
  additionalProperties: false,
};
const tools = [{ type: 'function', function: { name: 'get_weather', strict: true, parameters } }];
const options = { model, messages, tools, seed: 3, max_tokens: 400, tool_choice: 'required', parallel_tool_calls: false };

const client = () =>
  new OpenAI({
    baseURL: process.env.MILLRACE_CLIENT_URL + '/v1',
    apiKey: process.env.MILLRACE_CLIENT_KEY,
    maxRetries: 0,
    timeout: 120000,
  });

test('a stream and a whole answer make the same call', async () => {
  const whole = (await client().chat.completions.create(options)).choices[0];
  const stream = (await client().chat.completions.stream(options).finalChatCompletion()).choices[0];
  const [call] = whole.message.tool_calls;
  assert.equal(whole.finish_reason, 'tool_calls');
  assert.equal(stream.finish_reason, 'tool_calls');
  assert.equal(call.function.name, 'get_weather');
  assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ['city', 'days']);
  assert.equal(stream.message.tool_calls[0].function.arguments, call.function.arguments);
});
