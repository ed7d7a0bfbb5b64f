"""Chat templates of known checkpoints with their parts for tools, and the dialogues that they are tried with."""

_SIGNATURES = (
    "\\n\\n# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\nYou are provided with function "
    "signatures within <tools></tools> XML tags:\\n<tools>"
)
_HOW_TO_CALL = (
    "\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\\n<tool_call>\\n{\\\"name\\\": <function-name>, \\\"arguments\\\": <args-json-object>}\\n"
    "</tool_call><|im_end|>\\n"
)
_CALLS = r"""
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\n<tool_call>\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' }}
        {{- message.content }}
        {{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
"""


def _hermes(system, no_system, turns, opening):
    return (
        "{%- if tools %}\n    {{- '<|im_start|>system\\n' }}\n    {%- if messages[0]['role'] == 'system' %}\n"
        "        {{- messages[0]['content'] }}\n    {%- else %}\n        {{- '" + system + "' }}\n    {%- endif %}\n"
        '    {{- "' + _SIGNATURES + '" }}\n    {%- for tool in tools %}\n        {{- "\\n" }}\n        {{- tool | tojson }}\n'
        '    {%- endfor %}\n    {{- "' + _HOW_TO_CALL + '" }}\n{%- else %}\n    {%- if messages[0][\'role\'] == \'system\' %}\n'
        "        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}\n" + no_system +
        "    {%- endif %}\n{%- endif %}\n{%- for message in messages %}\n" + turns + _CALLS +
        "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n" + opening + "' }}\n{%- endif %}\n"
    )


def _qwen25(system):
    return _hermes(
        system, "    {%- else %}\n        {{- '<|im_start|>system\\n" + system + "<|im_end|>\\n' }}\n",
        '    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or '
        '(message.role == "assistant" and not message.tool_calls) %}\n'
        "        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n"
        '    {%- elif message.role == "assistant" %}\n        {{- \'<|im_start|>\' + message.role }}\n'
        "        {%- if message.content %}\n            {{- '\\n' + message.content }}\n        {%- endif %}", "")


_WITHOUT_THOUGHTS = "        {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}\n"
QWQ = _hermes(
    "", "",
    '    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}\n'
    "        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n"
    '    {%- elif message.role == "assistant" and not message.tool_calls %}\n' + _WITHOUT_THOUGHTS +
    "        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}\n"
    '    {%- elif message.role == "assistant" %}\n' + _WITHOUT_THOUGHTS +
    "        {{- '<|im_start|>' + message.role }}\n"
    "        {%- if message.content %}\n            {{- '\\n' + content }}\n        {%- endif %}", "<think>\\n")

LLAMA = r"""{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- This block extracts the system message, so we can slot it into the right place. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{#- System message + builtin tools #}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if builtin_tools is defined or tools is not none %}
    {{- "Environment: ipython\n" }}
{%- endif %}
{%- if builtin_tools is defined %}
    {{- "Tools: " + builtin_tools | reject('equalto', 'code_interpreter') | join(", ") + "\n\n"}}
{%- endif %}
{{- "Cutting Knowledge Date: December 2023\n" }}
{{- "Today Date: " + date_string + "\n\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {{- "You have access to the following functions. To call a function, please respond with JSON for a function call." }}
    {{- 'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.' }}
    {{- "Do not use variables.\n\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}

{#- Custom tools are passed in a user message with some extra guidance #}
{%- if tools_in_user_message and not tools is none %}
    {#- Extract the first user message so we can plug it in here #}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("Cannot put tools in the first user message when there's no first user message!") }}
{%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\n\n' -}}
    {{- "Given the following functions, please respond with a JSON for a function call " }}
    {{- "with its proper arguments that best answers the given prompt.\n\n" }}
    {{- 'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.' }}
    {{- "Do not use variables.\n\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
    {{- first_user_message + "<|eot_id|>"}}
{%- endif %}

{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\n\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""

# name: what the engine must recognise it as
TEMPLATES = [dict(zip(("name", "tokenizer", "source"), t)) for t in (
    ("qwen2", "qwen2", _qwen25("You are a helpful assistant.")),
    ("qwen2.5", "qwen2", _qwen25("You are Qwen, created by Alibaba Cloud. You are a helpful assistant.")),
    ("qwq", "qwen2", QWQ),
    ("llama-3.1", "llama3", LLAMA),
)]


def _function(name, description=None, parameters=None):
    function = {"name": name}
    if description is not None:
        function["description"] = description
    if parameters is not None:
        function["parameters"] = parameters
    return {"type": "function", "function": function}


WEATHER = _function("get_weather", "The weather at a place; « ici », 在这里 & \"there\".", {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "Name\tof the city\n"},
                   "days": {"type": "integer", "minimum": 1, "maximum": 14, "default": 3},
                   "units": {"enum": ["°C", "°F", None, True, False]}},
    "required": ["city"], "additionalProperties": False})
NUMBERS = _function("f-2_x", "", {"type": "object", "properties": {"x": {
    "type": "number", "minimum": -0.5, "maximum": 1e22, "multipleOf": 0.1,
    "examples": [1.0, 1e16, 123456789012345.6, 1e-5, 0.0001, -2.5e-300, 0.30000000000000004, 1e15, -0.0, 5e-324, []]}},
    "$defs": {}, "title": "\u0001\u001f\u007f\\ /\b\f\r\ud55c"})
BARE = _function("now")


def _turn(role, content, **more):
    return {"role": role, "content": content, **more}


def _calls(*calls, content=""):
    return _turn("assistant", content, tool_calls=[
        {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for i, (name, arguments) in enumerate(calls)])


_ASKED = [_turn("user", "Paris?"), _calls(("get_weather", {"city": "Paris", "days": 2, "x": [1.5, {"é": None}, []]}))]
# several calls in a turn are not for llama-3.1, whose template raises: its ids are null there
CHATS = [{"messages": messages, "tools": tools} for messages, tools in (
    ([_turn("user", "Hello")], [WEATHER]),
    ([_turn("user", " Hello\n")], [BARE, WEATHER, NUMBERS]),
    ([_turn("system", " Be brief. "), _turn("user", "Hello")], [NUMBERS]),
    ([_turn("system", ""), _turn("user", "Hello"), _turn("system", "late")], [BARE]),
    (_ASKED + [_turn("tool", '{"temp": 21}', tool_call_id="call_0")], [WEATHER]),
    (_ASKED + [_turn("tool", " \"sunny\"\n🌞\t ", tool_call_id="call_0"), _turn("assistant", "It is sunny."),
               _turn("user", "Thanks")], [WEATHER, BARE]),
    (_ASKED + [_turn("tool", "", tool_call_id="call_0")], []),
    ([_turn("user", "Both?"), _calls(("get_weather", {"city": "A"}), ("now", {}), content="Let me look."),
      _turn("tool", "1", tool_call_id="call_0"), _turn("tool", "2", tool_call_id="call_1"), _turn("user", "And?")], [WEATHER, BARE]),
    ([_turn("user", "x"), _turn("assistant", "<think>\nhm\n</think>\n\nplain"), _turn("user", "y"),
      _calls(("now", {}), content="<think>\nI call\n</think>\n\nsay"), _turn("tool", "12:00", tool_call_id="call_0")], [BARE]),
    ([_turn("user", "x"), _turn("assistant", "</think>last")], [BARE]),
)]
