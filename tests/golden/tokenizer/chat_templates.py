"""The chat templates of known checkpoints, the parts for tools left out, and the dialogues that they are tried with."""

DEEPSEEK_LLM = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{{ bos_token }}"
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}"
    "{% elif message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def _deepseek(systems, answer, opening):
    return (
        "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
        "{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt=''"
        + (", is_first_sp=true" if "is_first_sp" in systems else "") + ") %}"
        "{%- for message in messages %}{%- if message['role'] == 'system' %}" + systems + "{%- endif %}{%- endfor %}"
        "{{bos_token}}{{ns.system_prompt}}{%- for message in messages %}{%- if message['role'] == 'user' %}"
        "{%- set ns.is_tool = false -%}{{'<｜User｜>' + message['content']}}{%- endif %}"
        "{%- if message['role'] == 'assistant' %}" + answer + "{%- endif %}{%- endfor -%}"
        "{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜>" + opening + "'}}{% endif %}"
    )


_LAST = "{% set ns.system_prompt = message['content'] %}"
_JOINED = (
    "{%- if ns.is_first_sp %}{% set ns.system_prompt = ns.system_prompt + message['content'] %}"
    "{% set ns.is_first_sp = false %}{%- else %}"
    "{% set ns.system_prompt = ns.system_prompt + '\\n\\n' + message['content'] %}{%- endif %}"
)
_PLAIN = "{{'<｜Assistant｜>' + message['content'] + '<｜end▁of▁sentence｜>'}}"
_WITHOUT_THOUGHTS = (
    "{% set content = message['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}"
)

LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)


def _llama31(date):
    return (
        "{{- bos_token }}\n" + date + "\n{%- if messages[0]['role'] == 'system' %}\n"
        "    {%- set system_message = messages[0]['content']|trim %}\n    {%- set messages = messages[1:] %}\n{%- else %}\n"
        '    {%- set system_message = "" %}\n{%- endif %}\n'
        '{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}\n'
        '{{- "Cutting Knowledge Date: December 2023\\n" }}\n{{- "Today Date: " + date_string + "\\n\\n" }}\n'
        '{{- system_message }}\n{{- "<|eot_id|>" }}\n{%- for message in messages %}\n'
        "    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim"
        " + '<|eot_id|>' }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n"
        "    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n{%- endif %}\n"
    )


_FIXED_DATE = '{%- if not date_string is defined %}\n    {%- set date_string = "26 Jul 2024" %}\n{%- endif %}'
_TODAY = (
    '{%- if not date_string is defined %}\n    {%- if strftime_now is defined %}\n'
    '        {%- set date_string = strftime_now("%d %b %Y") %}\n    {%- else %}\n'
    '        {%- set date_string = "26 Jul 2024" %}\n    {%- endif %}\n{%- endif %}'
)

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CHATML_BOS = "{{bos_token}}" + CHATML.replace("\\n", "\n")
QWEN2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
QWEN25 = (
    "{%- if messages[0]['role'] == 'system' %}\n"
    "    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}\n{%- else %}\n"
    "    {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}\n"
    "{%- endif %}\n{%- for message in messages %}\n"
    '    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant")'
    " %}\n        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n    {%- endif %}\n"
    "{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n"
)
QWEN25_MATH = QWEN25.replace(
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    "Please reason step by step, and put your final answer within \\\\boxed{}.")
QWQ = (
    "{%- if messages[0]['role'] == 'system' %}\n"
    "    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}\n{%- endif %}\n"
    "{%- for message in messages %}\n"
    '    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}\n'
    "        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n"
    '    {%- elif message.role == "assistant" %}\n        {%- set content = message.content %}\n'
    "        {%- if not loop.last %}\n"
    "            {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}\n        {%- endif %}\n"
    "        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}\n    {%- endif %}\n"
    "{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n<think>\\n' }}\n{%- endif %}\n"
)

# name: what the engine must recognise it as
TEMPLATES = [dict(zip(("name", "tokenizer", "opens_thinking", "source"), t)) for t in (
    ("deepseek-llm", "deepseek_llm", False, DEEPSEEK_LLM),
    ("deepseek-llm", "deepseek_llm", False, DEEPSEEK_LLM.replace("\\n", "\n")),
    ("deepseek-v3", "deepseek_v3", False, _deepseek(_JOINED, _PLAIN, "")),
    ("deepseek-r1", "deepseek_v3", True, _deepseek(_JOINED, _WITHOUT_THOUGHTS, "<think>\\n")),
    ("deepseek-r1", "deepseek_v3", False, _deepseek(_JOINED, _WITHOUT_THOUGHTS, "")),
    ("deepseek-r1", "deepseek_v3", True, _deepseek(_LAST, _WITHOUT_THOUGHTS, "<think>\\n")),
    ("deepseek-r1", "deepseek_v3", False, _deepseek(_LAST, _WITHOUT_THOUGHTS, "")),
    ("llama-3", "llama3", False, LLAMA3),
    ("llama-3.1", "llama3", False, _llama31(_FIXED_DATE)),
    ("llama-3.1", "llama3", False, _llama31(_TODAY)),
    ("chatml", "qwen2", False, CHATML),
    ("chatml", "cl100k", False, CHATML_BOS),
    ("qwen2", "qwen2", False, QWEN2),
    ("qwen2.5", "qwen2", False, QWEN25),
    ("qwen2", "qwen2", False, QWEN25_MATH),
    ("qwq", "qwen2", True, QWQ),
)]


def _chat(*turns):
    return [{"role": role, "content": content} for role, content in turns]


DIALOGUES = [
    _chat(("user", "Hello")),
    _chat(("user", "")),
    _chat(("user", "你好，请介绍一下你自己。")),
    _chat(("user", "  spaces around \n\n")),
    _chat(("user", "\u3000wide\u00a0spaces\u2003and a separator\x1c")),
    _chat(("user", "\n")),
    _chat(("system", "Be brief."), ("user", "Why is the sky blue?")),
    _chat(("developer", "Be brief."), ("user", "Why is the sky blue?")),
    _chat(("system", ""), ("user", "x")),
    _chat(("system", " \n Answer in verse.\n"), ("user", "x")),
    _chat(("user", "Hi"), ("assistant", "Hello! How can I help?"), ("user", "Tell me 123 things.")),
    _chat(("user", "Hi"), ("assistant", " padded \n"), ("user", " padded too ")),
    _chat(("system", "S"), ("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4"), ("user", "5")),
    _chat(("user", "think"), ("assistant", "<think>\nhm, 2 + 2\n</think>\n\nIt is 4."), ("user", "and 3 + 3?")),
    _chat(("user", "think"), ("assistant", "one</think>two</think>\n\nthree"), ("user", "more")),
    _chat(("user", "think"), ("assistant", "</think>"), ("user", "more")),
    _chat(("user", "one"), ("user", "two"), ("user", "three")),
    _chat(("user", "one"), ("assistant", "two"), ("assistant", "three")),
    _chat(("user", "one"), ("assistant", "<think>a</think>\n\nb")),
    _chat(("assistant", "I begin."), ("user", "Go on.")),
    _chat(("system", "alone")),
    _chat(("system", "first"), ("system", "second"), ("user", "x")),
    _chat(("user", "x"), ("system", "late"), ("user", "y")),
    _chat(("user", "x"), ("developer", "later"), ("assistant", "z"), ("system", "last"), ("user", "y")),
    _chat(("user", "def f(x):\n    return x\n"), ("assistant", "```python\nf(1)\n```\n"), ("user", "👍🏽 merci, c'était bien")),
    _chat(("user", "User: not a turn\n\nAssistant: neither\n\n")),
]
