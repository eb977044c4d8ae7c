# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of a Papermerge 2.0 project; what an administrator sets comes from ``papermerge.conf.py``."""

from __future__ import annotations

import sys
from pathlib import Path

from mglib.utils import try_load_config

# Papermerge's own checks read these three names.
DEFAULT_CONFIG_PLACES = ["/etc/papermerge.conf.py", "papermerge.conf.py"]
DEFAULT_PAPERMERGE_CONFIG_ENV_NAME = "PAPERMERGE_CONFIG"
CFG_PAPERMERGE = try_load_config(
    config_locations=DEFAULT_CONFIG_PLACES, config_env_var_name=DEFAULT_PAPERMERGE_CONFIG_ENV_NAME
)

_configured = CFG_PAPERMERGE.get
PROJ_ROOT = Path(__file__).resolve().parents[2]

DEBUG = False
SECRET_KEY = "a test instance keeps no secrets"
SITE_ID = 1
ALLOWED_HOSTS = ["*"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
TIME_ZONE = "UTC"
USE_TZ = True
LANGUAGE_CODE = _configured("LANGUAGE_CODE", "en")
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"

# --- where things are -----------------------------------------------------------------------------------------------

MEDIA_ROOT = str(_configured("MEDIA_DIR", PROJ_ROOT / "media"))
MEDIA_URL = _configured("MEDIA_URL", "/documents/")
STATIC_ROOT = str(_configured("STATIC_DIR", PROJ_ROOT / "static"))
STATIC_URL = _configured("STATIC_URL", "/static/")

_ENGINES = {
    "django.db.backends.postgresql": (5432, {"pg", "postgre", "postgres", "postgresql"}),
    "django.db.backends.mysql": (3306, {"my", "mysql", "maria", "mariadb"}),
}
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(Path(_configured("DBDIR", PROJ_ROOT)) / "db.sqlite3"),
    }
}
for _engine, (_port, _names) in _ENGINES.items():
    if _configured("DBTYPE") in _names:
        DATABASES["default"] = {
            "ENGINE": _engine,
            "NAME": _configured("DBNAME", "papermerge"),
            "USER": _configured("DBUSER", "papermerge"),
            "PASSWORD": _configured("DBPASS", ""),
            "HOST": _configured("DBHOST", "localhost"),
            "PORT": _configured("DBPORT", _port),
        }

# --- the application ------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.sites",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "knox",
    "papermerge.core",
    "papermerge.contrib.admin",
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    "bootstrap4",
    "dynamic_preferences",
    "dynamic_preferences.users.apps.UserPreferencesConfig",
    "polymorphic_tree",
    "polymorphic",
    "mptt",
    "mgclipboard",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "mgclipboard.middleware.ClipboardMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "dynamic_preferences.processors.global_preferences",
                "papermerge.contrib.admin.context_processors.extras",
                "papermerge.contrib.admin.context_processors.user_perms",
                "papermerge.contrib.admin.context_processors.user_menu",
            ]
        },
    }
]
AUTH_USER_MODEL = "core.User"
AUTHENTICATION_BACKENDS = [
    "papermerge.core.auth.NodeAuthBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
ACCOUNT_AUTHENTICATION_METHOD = "username"
ACCOUNT_EMAIL_VERIFICATION = "none"
LOGIN_URL = "/accounts/login/"
LOGIN_REDIRECT_URL = "/"
REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": ["knox.auth.TokenAuthentication"]}

# --- Papermerge -----------------------------------------------------------------------------------------------------

PAPERMERGE_CREATE_SPECIAL_FOLDERS = True
PAPERMERGE_DEFAULT_FILE_STORAGE = "mglib.storage.FileSystemStorage"
PAPERMERGE_FILE_STORAGE_KWARGS = {}
PAPERMERGE_SEARCH_BACKEND = "papermerge.search.backends.db.SearchBackend"
PAPERMERGE_PIPELINES = ["papermerge.core.import_pipeline.DefaultPipeline"]
PAPERMERGE_MIMETYPES = ["application/octet-stream", "application/pdf", "image/png", "image/jpeg", "image/tiff"]
PAPERMERGE_OCR_DEFAULT_LANGUAGE = _configured("OCR_DEFAULT_LANGUAGE", "deu")
PAPERMERGE_OCR_LANGUAGES = _configured("OCR_LANGUAGES", {"deu": "Deutsch", "eng": "English"})
PAPERMERGE_METADATA_DATE_FORMATS = ["dd.mm.yy", "dd.mm.yyyy", "dd.M.yyyy", "month"]
PAPERMERGE_METADATA_CURRENCY_FORMATS = ["dd.cc", "dd,cc"]
PAPERMERGE_METADATA_NUMERIC_FORMATS = ["dddd", "d,ddd", "d.ddd"]
PAPERMERGE_IMPORTER_DIR = _configured("IMPORTER_DIR")
PAPERMERGE_IMPORTER_LOOP_TIME = 5
PAPERMERGE_FILES_MIN_UNMODIFIED_DURATION = 1
PAPERMERGE_IMPORT_MAIL_HOST = ""
PAPERMERGE_IMPORT_MAIL_USER = ""
PAPERMERGE_IMPORT_MAIL_PASS = ""
PAPERMERGE_IMPORT_MAIL_INBOX = "INBOX"
PAPERMERGE_IMPORT_MAIL_DELETE = False
PAPERMERGE_IMPORT_MAIL_BY_USER = False
PAPERMERGE_IMPORT_MAIL_BY_SECRET = False

BINARY_FILE = "/usr/bin/file"
BINARY_CONVERT = "/usr/bin/convert"
BINARY_IDENTIFY = "/usr/bin/identify"
BINARY_OCR = "/usr/bin/tesseract"
BINARY_PDFINFO = "/usr/bin/pdfinfo"
BINARY_PDFTOPPM = "/usr/bin/pdftoppm"
BINARY_STAPLER = str(Path(sys.prefix) / "bin" / "stapler")
