"""An OpenAI-compatible server: any OpenAI client asks a bank, remembers, recalls and forgets.

::

    gate.py          who is asking, how much they may send, and what is logged of it
    keys.py          keys and the namespaces they open
    line.py          requests wait for each other at the model
    speaking.py      answers spoken for as long as somebody listens
    schemas.py       what a request may say
    completions.py   an answer as OpenAI's chat completion, whole or in chunks
    errors.py        trimem's errors in OpenAI's format
    app.py           all of it together
    command.py       ``trimem serve``
"""
