"""In which of a few languages a text is written, by its shares of stop words."""

from __future__ import annotations

from heedful.evals.texts import words
from heedful.judges.effect_checks import Options
from heedful.judges.effect_words import word_set

_LEAST = 0.12  # share of stop words; running text has a third or more, lists of names have fewer

STOP_WORDS: dict[str, frozenset[str]] = {
    "french": word_set("""
    le la les un une des du de et est sont que qui dans pour pas sur avec ce cette ces il elle nous vous ils
    je tu ne plus au aux par ou où mais se sa son ses leur leurs votre vos notre nos être avoir fait très
    aussi comme tout tous c'est d'un d'une l'on qu'il j'ai n'est y en à même bien peut si merci bonjour
    """),
    "spanish": word_set("""
    el la los las un una unos unas de del y es son que en por para con no se su sus lo le les al como más
    pero muy este esta estos estas eso ese hay ha han ser está están fue yo tú usted nosotros nuestro
    nuestra también si sí ya cuando donde qué porque o todo todos puede gracias hola desde hasta sobre entre
    mi tu
    """),
    "german": word_set("""
    der die das den dem des ein eine einen einem einer und ist sind war nicht mit für auf im in zu zum zur
    von vom ich du er sie es wir ihr sich auch als wie aber oder wenn dass bei nach aus an am noch nur so
    kann können werden wird wurde haben hat sein ihre ihren unser mein man mehr sehr durch über danke bitte
    um
    """),
    "italian": word_set("""
    il lo la i gli le un uno una di del della dei delle e è sono che in per con non si su al alla da dal
    dalla come più ma molto questo questa questi queste ci ha hanno essere nel nella anche se mi ti suo sua
    loro noi voi io tu o quando dove perché tutto tutti può grazie ciao c'è l'ho fra tra ed degli nostro
    """),
    "portuguese": word_set("""
    o a os as um uma uns umas de do da dos das e é são que em no na nos nas por para com não se seu sua seus
    suas ao à pelo pela como mais mas muito este esta isso isto há foi ser está estão eu você nós ele ela
    também já quando onde porque ou tudo todos pode obrigado obrigada olá desde até sobre entre meu minha
    """),
    "dutch": word_set("""
    de het een en is zijn was niet met voor op in te van ik jij je hij zij ze we wij u er dat die dit deze
    ook als maar of om bij naar uit aan nog wel kan kunnen worden wordt heeft hebben mijn jouw ons onze hun
    meer veel door over dank bedankt graag dan wat hoe zo zou moet
    """),
    "english": word_set("""
    the a an and is are was were of to in that it for on with as this be by not you i he she we they at from
    or have has had but what when your my our their his her can will would there which do if so all more how
    about into than then these those thanks please me us them it's i'm don't
    """),
}


def is_in_language(o: Options, text: str, start: str | None) -> bool:
    """Whether the stop words of the language are more frequent than those of each other one, and frequent enough.

    A word of two languages counts for both, so that closely related ones are told apart by the rest.
    """
    w = [part for word in words(text) for part in {word, word.split("'")[0] if "'" in word else word}]
    if not w:
        return False
    shares = {name: sum(word in stop for word in w) / len(w) for name, stop in STOP_WORDS.items()}
    wanted = shares.pop(o["name"])
    return wanted >= _LEAST and wanted > max(shares.values())
