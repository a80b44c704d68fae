"""What a page says."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """The words and the addresses of a page."""

    def __init__(self, text):
        super().__init__()
        self.words, self.addresses, self.hidden = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.hidden = tag in ("style", "script")
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href", "action")]

    def handle_endtag(self, tag):
        self.hidden = False

    def handle_data(self, data):
        if not self.hidden:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())
