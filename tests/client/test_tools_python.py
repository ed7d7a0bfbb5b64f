"""Tools with the official openai package for Python, against a running pipeline whose model has them (MILLRACE_CLIENT_URL, _KEY)."""

import json
import os
import unittest

import openai

MODEL = "millrace-demo"
ASK = [{"role": "user", "content": "What is the weather in Paris?"}]
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather at a place.", "strict": True, "parameters": {
        "type": "object", "properties": {"city": {"enum": ["Paris", "Oslo"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["city", "days"], "additionalProperties": False}}}
NOW = {"type": "function", "function": {"name": "now"}}
CHOSEN = {"type": "function", "function": {"name": "get_weather"}}


def client():
    return openai.OpenAI(base_url=os.environ["MILLRACE_CLIENT_URL"] + "/v1", api_key=os.environ["MILLRACE_CLIENT_KEY"],
                         max_retries=0, timeout=120)


def create(**options):
    return client().chat.completions.create(model=MODEL, **{"messages": ASK, "seed": 3, "max_tokens": 400, **options})


class Tools(unittest.TestCase):
    def check(self, call):
        self.assertEqual((call.type, call.function.name), ("function", "get_weather"))
        self.assertTrue(call.id.startswith("call_"))
        arguments = json.loads(call.function.arguments)
        self.assertEqual(set(arguments), {"city", "days"})
        self.assertIn(arguments["city"], ["Paris", "Oslo"])
        self.assertIn(arguments["days"], range(1, 10))

    def test_a_chosen_tool_is_called(self):
        choice = create(tools=[NOW, WEATHER], tool_choice=CHOSEN).choices[0]
        self.assertEqual(choice.finish_reason, "tool_calls")
        self.assertIsNone(choice.message.content)
        self.assertEqual(len(choice.message.tool_calls), 1)
        self.check(choice.message.tool_calls[0])

    def test_a_stream_puts_the_same_call_together(self):
        whole = create(tools=[WEATHER], tool_choice="required", parallel_tool_calls=False).choices[0].message.tool_calls[0]
        with client().chat.completions.stream(model=MODEL, messages=ASK, seed=3, max_tokens=400, tools=[WEATHER],
                                              tool_choice="required", parallel_tool_calls=False) as stream:
            done = stream.get_final_completion().choices[0]
        self.assertEqual(done.finish_reason, "tool_calls")
        self.check(done.message.tool_calls[0])
        self.assertEqual(done.message.tool_calls[0].function.arguments, whole.function.arguments)

    def test_a_result_goes_back(self):
        message = create(tools=[WEATHER], tool_choice=CHOSEN).choices[0].message
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}
        answer = create(tools=[WEATHER], tool_choice="none", max_tokens=8, messages=ASK + [message.model_dump(), result])
        self.assertIsNone(answer.choices[0].message.tool_calls)

    def test_what_cannot_be_kept_is_refused(self):
        schema = {"type": "object", "patternProperties": {"^a": {}}}
        tool = {"type": "function", "function": {"name": "f", "strict": True, "parameters": schema}}
        with self.assertRaisesRegex(openai.BadRequestError, "patternProperties is not supported"):
            create(tools=[tool])
        with self.assertRaisesRegex(openai.BadRequestError, "there are no tools"):
            create(tool_choice="required")


if __name__ == "__main__":
    unittest.main(verbosity=2)
