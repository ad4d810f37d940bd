"""The fixed words of a report, in the languages it can be issued in. Everything else in it is data."""

from datetime import date, datetime
from typing import Final, Literal, get_args

Locale = Literal["en", "de", "fr", "es"]
LOCALES: Final[tuple[Locale, ...]] = get_args(Locale)

_MONTHS: Final[dict[Locale, str]] = {
    "en": "January February March April May June July August September October November December",
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
}
_DATE: Final[dict[Locale, str]] = {
    "en": "{day} {month} {year}",
    "de": "{day}. {month} {year}",
    "fr": "{day} {month} {year}",
    "es": "{day} de {month} de {year}",
}

_TABLE: Final = """
title|Dermatology report|Dermatologischer Befundbericht|Compte rendu de dermatologie|Informe dermatológico
patient|Patient|Patientin/Patient|Patient|Paciente
name|Name|Name|Nom|Nombre
birth_date|Date of birth|Geburtsdatum|Date de naissance|Fecha de nacimiento
sex|Sex|Geschlecht|Sexe|Sexo
sex.female|female|weiblich|féminin|femenino
sex.male|male|männlich|masculin|masculino
sex.other|other|divers|autre|otro
sex.unknown|not stated|keine Angabe|non précisé|no consta
case|Case|Fall|Dossier|Caso
reference|Reference|Fallnummer|Référence|Referencia
submitted|Submitted|Eingereicht|Soumis|Enviado
answered|Answered|Beantwortet|Répondu|Respondido
issued|Report issued|Bericht erstellt|Compte rendu émis|Informe emitido
supersedes|Supersedes report|Ersetzt Bericht|Remplace le compte rendu|Sustituye al informe
complaint|Complaint|Anliegen|Motif de consultation|Motivo de consulta
body_site|Body site|Körperstelle|Localisation|Localización
history|History|Vorgeschichte|Antécédents|Antecedentes
photographs|Photographs|Fotografien|Photographies|Fotografías
photograph|Photograph|Fotografie|Photographie|Fotografía
captured|taken|aufgenommen|prise|tomada
marks|Marks on photograph|Markierungen auf Fotografie|Repères sur la photographie|Marcas en la fotografía
number|No.|Nr.|N°|N.º
mark|Mark|Markierung|Repère|Marca
by_ai|AI|KI|IA|IA
findings|Findings|Befund|Constatations|Hallazgos
answer|Assessment by the physician|Ärztliche Beurteilung|Évaluation du médecin|Valoración del médico
outcome|Outcome|Ergebnis|Conclusion|Resultado
signed|Signed electronically|Elektronisch unterzeichnet|Signé électroniquement|Firmado electrónicamente
licence|Licence|Approbation|Autorisation d’exercice|N.º de colegiado
assistance|AI assistance|KI-Unterstützung|Assistance par IA|Asistencia por IA
model|Model|Modell|Modèle|Modelo
triage|Urgency|Dringlichkeit|Urgence|Urgencia
triage.emergency|emergency|Notfall|urgence vitale|emergencia
triage.urgent|urgent|dringend|urgent|urgente
triage.soon|soon|bald|rapide|pronto
triage.routine|routine|regulär|non urgent|rutina
red_flags|Red flags|Warnzeichen|Signes d’alerte|Signos de alarma
none|none reported|keine gemeldet|aucun signalé|ninguno comunicado
differential|Differential diagnosis|Differenzialdiagnose|Diagnostic différentiel|Diagnóstico diferencial
condition|Condition|Erkrankung|Affection|Enfermedad
code|Code|Code|Code|Código
weight|Weight|Gewicht|Poids|Peso
uncalibrated|Weights order the candidates; they are not probabilities.|Die Gewichte ordnen die Vorschläge; sie sind keine Wahrscheinlichkeiten.|Les poids ordonnent les propositions ; ce ne sont pas des probabilités.|Los pesos ordenan las propuestas; no son probabilidades.
probability|Probability|Wahrscheinlichkeit|Probabilité|Probabilidad
warnings|Warnings|Hinweise|Avertissements|Advertencias
verification|Verification|Echtheitsprüfung|Vérification|Verificación
verify|Scan the code or open the address to see whether this report is authentic and current.|Code scannen oder Adresse öffnen, um zu prüfen, ob dieser Bericht echt und aktuell ist.|Scannez le code ou ouvrez l’adresse pour vérifier que ce compte rendu est authentique et à jour.|Escanee el código o abra la dirección para comprobar que este informe es auténtico y vigente.
qr|QR code that leads to|QR-Code, der führt zu|Code QR menant à|Código QR que lleva a
fingerprint|Fingerprint of the signed content (SHA-256)|Fingerabdruck des unterzeichneten Inhalts (SHA-256)|Empreinte du contenu signé (SHA-256)|Huella del contenido firmado (SHA-256)
page|Page|Seite|Page|Página
""".strip()

WORDS: Final[dict[Locale, dict[str, str]]] = {
    locale: {row.split("|")[0]: row.split("|")[column] for row in _TABLE.splitlines()}
    for column, locale in enumerate(LOCALES, start=1)
}


def written_date(day: date, locale: Locale) -> str:
    """`day` in full, so that 03/04 cannot be misread: “14 March 2026”, “14. März 2026”, “14 de marzo de 2026”."""
    number = "1er" if locale == "fr" and day.day == 1 else str(day.day)
    return _DATE[locale].format(day=number, month=_MONTHS[locale].split()[day.month - 1], year=day.year)


def written_time(moment: datetime, locale: Locale) -> str:
    """Date and time to the minute, with the offset from UTC if `moment` knows its own."""
    text = f"{written_date(moment, locale)}, {moment:%H:%M}"
    return text if moment.tzinfo is None else f"{text}\u00a0{moment:%Z}"
