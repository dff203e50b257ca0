"""English verbs and their past: the irregular ones that are common, and regular ones by rule."""

_IRREGULAR = """
arise arose, awake awoke, bear bore, beat beat, become became, begin began, bend bent, bet bet,
bind bound, bite bit, bleed bled, blow blew, break broke, breed bred, bring brought, build built,
burst burst, buy bought, catch caught, choose chose, cling clung, come came, cost cost, creep crept,
cut cut, deal dealt, dig dug, do did, draw drew, drink drank, drive drove, eat ate, fall fell,
feed fed, feel felt, fight fought, find found, flee fled, fling flung, fly flew, forbid forbade,
forget forgot, forgive forgave, freeze froze, get got, give gave, go went, grind ground, grow grew,
hang hung, have had, hear heard, hide hid, hit hit, hold held, hurt hurt, keep kept, kneel knelt,
know knew, lay laid, lead led, leave left, lend lent, let let, lie lay, lose lost, make made,
mean meant, meet met, pay paid, put put, read read, ride rode, ring rang, rise rose, run ran,
say said, see saw, seek sought, sell sold, send sent, set set, shake shook, shine shone, shoot shot,
show showed, shrink shrank, shut shut, sing sang, sink sank, sit sat, sleep slept, slide slid,
speak spoke, speed sped, spend spent, spin spun, split split, spread spread, spring sprang,
stand stood, steal stole, stick stuck, sting stung, strike struck, swear swore, sweep swept,
swim swam, swing swung, take took, teach taught, tear tore, tell told, think thought,
throw threw, understand understood, wake woke, wear wore, weave wove, weep wept, win won,
wind wound, wring wrung, write wrote
"""

_REGULAR = """
add ask bake bark beg believe blame blink bolt brush call care carry chat cheer chop clap clean
climb close cook copy count cry dance decide die drag drop dry earn empty end enjoy enter fail fill
fix float fold fry gain glue grab grin guess hate help hop hope hug hurry invite jog join joke jump
kick kiss knit land laugh learn like listen live lock look love marry melt mix move nap need nod
notice open pack paint pass peel plan plant play point pour pray press pull push rain reach rely
repair reply rest rob roll rub rush sail save scream shop shout skip slip smell smile smoke snow
sound spray start stay step stop study talk taste thank tie tip touch trap travel try tug turn use
visit wait walk want wash watch wave whip whisper wish wonder work worry wrap yawn yell zip
"""

_LAST_DOUBLED = {
    *("beg", "chat", "chop", "clap", "drag", "drop", "grab", "grin", "hop", "hug", "jog", "knit"),
    *("nap", "nod", "plan", "rob", "rub", "shop", "skip", "slip", "step", "stop", "tip", "trap"),
    *("tug", "whip", "wrap", "zip"),
}


def _past(verb: str) -> str:
    """The past of a regular verb."""
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    return verb + (verb[-1] if verb in _LAST_DOUBLED else "") + "ed"


PAST: dict[str, str] = {
    **dict(pair.split() for pair in _IRREGULAR.split(",")),
    **{verb: _past(verb) for verb in _REGULAR.split()},
}
