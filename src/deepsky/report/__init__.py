"""What an astronomer sees: reports, surveys in notebooks, sheets of pictures, drawn from what others computed.

`page` writes a report as one file, `plots` and its companions draw its figures, `gallery` its pictures, `words` its
sentences; `notebook` shows a survey.
"""
